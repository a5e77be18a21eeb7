"""Tasks of every kind that the engine knows, from a seed: the same seed gives the same tasks.

A workload is made of stories, each a few tasks that belong together: a chain, a diamond, a layered graph, a
failure with what hangs on it, a vote, a team, a parent with sub-tasks. Names are unique in the whole trial
and are idempotency keys as well, so that a killed client may submit again what it has no answer for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agentorch_cli.chaos.behaviour import CAPABILITY

Task = dict[str, Any]
Batch = list[Task]

LONG_MS = 400
"""Work that is still under way when its client calls it off."""


class Workload:
    """The batches of one client."""

    def __init__(self, name: str, seed: int, tasks: int, *, batch: int = 200, voters: int = 5) -> None:
        """About `tasks` tasks, `batch` at a time, and besides them what sub-tasks they submit.

        `voters` is how many agents there are at least.
        """
        self.name = name
        self.tasks = tasks
        self.batch = batch
        self.voters = voters
        self._random = random.Random(f"{name} {seed}")
        self._count = 0
        self._landmarks: list[str] = []
        """Ids that were chosen here, so that later batches can depend on these tasks."""

    def batches(self) -> Iterator[Batch]:
        """What is submitted together; its last story may make it a little longer."""
        while self._count < self.tasks:
            batch: Batch = []
            wanted = min(self.batch, self.tasks - self._count)
            while len(batch) < wanted:
                story = self._random.choices([one for one, _ in STORIES], [weight for _, weight in STORIES])[
                    0
                ]
                batch += story(self)[: self.batch]
            yield batch

    # --- pieces -----------------------------------------------------------------------------

    def _task(self, after: Sequence[Task] = (), **fields: Any) -> Task:
        self._count += 1
        name = f"{self.name}-{self._count}"
        data = {"ms": self._random.choice((0, 0, 1, 2, 5, 20)), **fields.pop("data", {})}
        task = {
            "name": name,
            "idempotency_key": name,
            "type": "chaos",
            "required_capabilities": [CAPABILITY],
            "priority": self._random.randint(0, 10),
            "backoff": 0.05,
            "depends_on": [one["name"] for one in after],
            "data": data,
        }
        return {**task, **fields}

    def flat(self) -> Batch:
        """Tasks that wait for nothing; some have ids of their own, and later ones may wait for those."""
        tasks = [self._task() for _ in range(self._random.randint(3, 12))]
        if self._random.random() < 0.5:
            tasks[0]["id"] = f"landmark-{tasks[0]['name']}"
            self._landmarks.append(tasks[0]["id"])
        return tasks

    def chain(self) -> Batch:
        tasks = [self._task()]
        for _ in range(self._random.randint(2, 6)):
            tasks.append(self._task(tasks[-1:]))
        if self._landmarks:
            landmark = self._random.choice(self._landmarks)
            tasks[0]["depends_on"] = [landmark]
        return tasks

    def diamond(self) -> Batch:
        first = self._task()
        middle = [self._task([first]) for _ in range(self._random.randint(2, 8))]
        return [first, *middle, self._task(middle)]

    def layers(self) -> Batch:
        tasks: Batch = []
        above: Batch = []
        for _ in range(self._random.randint(2, 4)):
            layer = [
                self._task(self._random.sample(above, min(len(above), self._random.randint(1, 3))))
                for _ in range(self._random.randint(2, 5))
            ]
            tasks += layer
            above = layer
        return tasks

    def failing(self) -> Batch:
        """A task that fails for good, and those that hang on it in each of the three ways."""
        root = self._task(data={"fatal": True})
        doomed = self._task([root])
        skipped = self._task([root], on_dependency_failure="skip")
        undeterred = self._task([root], on_dependency_failure="run")
        return [root, doomed, skipped, undeterred, self._task([doomed]), self._task([skipped, undeterred])]

    def retried(self) -> Batch:
        task = self._task(data={"fails": self._random.randint(1, 2)})
        return [task, self._task([task])]

    def exhausted(self) -> Batch:
        return [self._task(data={"fails": 9}, retries=1)]

    def vote(self) -> Batch:
        rule = self._random.choice(("plurality", "majority", "supermajority", "unanimous"))
        panel = self._random.randint(2, self.voters)
        consensus: dict[str, Any] = {"rule": rule, "panel": panel, "vote_on": "/answer"}
        if rule == "supermajority":
            consensus["threshold"] = self._random.choice((0.5, 0.66, 0.75))
        if self._random.random() < 0.3:
            consensus["on_no_consensus"] = "plurality"
        choices = [f"answer {number}" for number in range(self._random.randint(2, 4))]
        data = {"choices": choices, "salt": self._random.randrange(10**6)}
        vote = self._task(consensus=consensus, data=data)
        return [vote, self._task([vote], on_dependency_failure="run")]

    def team(self) -> Batch:
        agents = self._random.randint(2, min(3, self.voters))
        aggregate = self._random.choice(("first", "all", "median"))
        data = {"spread": 50, "salt": self._random.randrange(10**6)}
        if aggregate == "median":
            data["most"] = 1000
        team = self._task(min_agents=agents, max_agents=agents + 1, aggregate=aggregate, data=data)
        return [team, self._task([team])]

    def parent(self) -> Batch:
        parent = self._task(data={"children": self._random.randint(1, 3)})
        return [parent, self._task([parent])]

    def funded(self) -> Batch:
        """A task whose budget pays for its retries, and one whose budget does not."""
        enough, little = {"cost_usd": 0.10, "attempt_usd": 0.02}, {"cost_usd": 0.03, "attempt_usd": 0.02}
        paid = self._task(budget=enough, retries=3, data={"usd": 0.01, "fails": self._random.randint(0, 3)})
        return [
            paid,
            self._task([paid]),
            self._task(budget=little, retries=5, data={"usd": 0.02, "fails": 4}),
        ]

    def called_off(self) -> Batch:
        """Its client cancels the first one soon after it was submitted."""
        task = self._task(data={"ms": LONG_MS}, labels={"cancel": "yes"})
        return [task, self._task([task], on_dependency_failure="skip")]


STORIES: list[tuple[Callable[[Workload], Batch], float]] = [
    (Workload.flat, 30),
    (Workload.chain, 16),
    (Workload.diamond, 12),
    (Workload.layers, 12),
    (Workload.failing, 3),
    (Workload.retried, 8),
    (Workload.exhausted, 1),
    (Workload.vote, 8),
    (Workload.team, 6),
    (Workload.parent, 4),
    (Workload.funded, 2),
    (Workload.called_off, 2),
]
"""Each with how often it comes."""
