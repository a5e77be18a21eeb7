"""Who gets the work: the program's own choice against random, round robin and least loaded.

A simulation, seeded and without a clock. Agents differ in how often they are right, per skill, in how
fast they are and in what they cost. One stream of tasks (Poisson arrivals, log-normal work) is played
once for each way of choosing; whether agent A succeeds at try n of task T is drawn from (seed, T, A, n),
so it does not depend on the way. A failed attempt is tried again by somebody else, twice at most.
The choice is `core.matching.Roster` with `engine.reputation.Reputation`, as the scheduler uses them.

    python -m bench.matching                 # three loads, five seeds
    python -m bench.matching --drop          # how soon a sudden loss of quality is noticed
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentorch_cli.core.matching import Member, Roster, Want
from agentorch_cli.core.model import AgentStatus
from agentorch_cli.core.scoring import Weights
from agentorch_cli.engine.reputation import Reputation

AGENTS, SKILLS, SLOTS, TASKS, RETRIES = 30, 8, 4, 12_000, 2
BAD = 0.1
"""How often an agent is right after it has lost its quality."""


@dataclass(slots=True)
class Truth:
    """What the choosers do not know."""

    quality: dict[tuple[str, int], float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    usd: dict[str, float] = field(default_factory=dict)
    skills: dict[str, frozenset[str]] = field(default_factory=dict)
    drops: dict[str, float] = field(default_factory=dict)
    """When an agent loses its quality."""


@dataclass(slots=True)
class Task:
    number: int
    skill: int
    work: float
    at: float
    tries: int = 0
    failed_at: frozenset[str] = frozenset()


@dataclass(slots=True)
class Result:
    """What one way made of the stream."""

    latencies: list[float] = field(default_factory=list)
    failed_tasks: int = 0
    failed_attempts: int = 0
    attempts: int = 0
    usd: float = 0.0
    log: list[tuple[float, str, int, bool]] = field(default_factory=list)


def world(seed: int) -> Truth:
    """Thirty agents: able ones cost more, and nobody is good at everything."""
    rng = random.Random(seed)
    truth = Truth()
    for number in range(AGENTS):
        agent = f"agent-{number:02}"
        ability = rng.gauss(0.4, 0.9)
        for skill in range(SKILLS):
            truth.quality[agent, skill] = 1 / (1 + math.exp(-(ability + rng.gauss(0, 1.0))))
        truth.seconds[agent] = rng.lognormvariate(0, 0.5)
        truth.usd[agent] = 0.002 * math.exp(0.5 * ability + rng.gauss(0, 0.3))
        truth.skills[agent] = frozenset(f"skill-{k}" for k in range(SKILLS))
    return truth


def stream(seed: int, load: float, truth: Truth) -> list[Task]:
    """Tasks that keep the fleet busy to this share, were they spread evenly."""
    rng = random.Random(f"{seed} {load}")
    capacity = sum(SLOTS / seconds for seconds in truth.seconds.values())
    now, tasks = 0.0, []
    for number in range(TASKS):
        now += rng.expovariate(capacity * load)
        tasks.append(Task(number, rng.randrange(SKILLS), rng.lognormvariate(-0.125, 0.5), now))
    return tasks


def is_right(seed: int, truth: Truth, task: Task, agent: str, now: float) -> bool:
    digest = hashlib.blake2b(f"{seed} {task.number} {agent} {task.tries}".encode(), digest_size=8).digest()
    quality = BAD if now >= truth.drops.get(agent, math.inf) else truth.quality[agent, task.skill]
    return int.from_bytes(digest, "big") / 2**64 < quality


Chooser = Callable[[Task, float], str | None]


class Engine:
    """The program's own choice."""

    def __init__(self, truth: Truth, weights: Weights, exploration: float, seed: int, learns: bool) -> None:
        self.roster = Roster(weights, exploration=exploration, seed=seed)
        self.reputation = Reputation(self.roster)
        self.learns = learns
        for agent, skills in truth.skills.items():
            self.roster.put(Member(agent, "worker", skills, SLOTS, AgentStatus.ONLINE, "node"))
        self.slots: dict[tuple[int, str], int] = {}

    def choose(self, task: Task, now: float) -> str | None:
        want = Want(frozenset({f"skill-{task.skill}"}), rather_not=task.failed_at, type="task")
        seats = self.roster.choose(want)
        if seats is None:
            return None
        seat = seats[0]
        self.roster.take(seat.member, seat.slot)
        self.slots[task.number, seat.member.agent_id] = seat.slot
        return seat.member.agent_id

    def ended(self, task: Task, agent: str, went_well: bool) -> None:
        if self.learns:
            self.reputation.outcome(agent, f"skill-{task.skill}", "task", went_well=went_well)
        self.roster.give_back(agent, self.slots.pop((task.number, agent)))


class Simple:
    """Random, round robin, least loaded, and whoever is truly best."""

    def __init__(self, truth: Truth, kind: str, seed: int) -> None:
        self.truth, self.kind = truth, kind
        self.rng = random.Random(f"{seed} {kind}")
        self.busy = dict.fromkeys(truth.skills, 0)
        self.last = -1
        self.order = sorted(truth.skills)

    def choose(self, task: Task, now: float) -> str | None:
        free = [a for a in self.order if self.busy[a] < SLOTS and a not in task.failed_at]
        if not free:
            return None
        if self.kind == "random":
            agent = self.rng.choice(free)
        elif self.kind == "round robin":
            ranks = {a: n for n, a in enumerate(self.order)}
            agent = min(free, key=lambda a: (ranks[a] - self.last - 1) % len(self.order))
            self.last = ranks[agent]
        elif self.kind == "least loaded":
            least = min(self.busy[a] for a in free)
            agent = self.rng.choice([a for a in free if self.busy[a] == least])
        else:
            agent = max(free, key=lambda a: (self._truly(a, task, now), a))
        self.busy[agent] += 1
        return agent

    def _truly(self, agent: str, task: Task, now: float) -> float:
        return BAD if now >= self.truth.drops.get(agent, math.inf) else self.truth.quality[agent, task.skill]

    def ended(self, task: Task, agent: str, went_well: bool) -> None:
        self.busy[agent] -= 1


def play(seed: int, truth: Truth, tasks: Sequence[Task], chooser: Any) -> Result:
    """Arrivals and ends in the order of time; whoever finds no agent waits in line."""
    result = Result()
    tasks = [Task(t.number, t.skill, t.work, t.at) for t in tasks]
    ends: list[tuple[float, int, Task, str]] = []
    waiting: deque[Task] = deque()
    arrivals = deque(tasks)
    counter = 0

    def start(now: float) -> None:
        nonlocal counter
        while waiting and (agent := chooser.choose(waiting[0], now)) is not None:
            task = waiting.popleft()
            counter += 1
            heapq.heappush(ends, (now + task.work * truth.seconds[agent], counter, task, agent))

    while arrivals or ends:
        if ends and (not arrivals or ends[0][0] <= arrivals[0].at):
            now, _, task, agent = heapq.heappop(ends)
            right = is_right(seed, truth, task, agent, now)
            chooser.ended(task, agent, right)
            result.attempts += 1
            result.usd += truth.usd[agent] * task.work
            result.log.append((now, agent, task.skill, right))
            if right:
                result.latencies.append(now - task.at)
            elif task.tries < RETRIES:
                task.tries += 1
                task.failed_at |= {agent}
                waiting.appendleft(task)
                result.failed_attempts += 1
            else:
                result.failed_attempts += 1
                result.failed_tasks += 1
        else:
            task = arrivals.popleft()
            now = task.at
            waiting.append(task)
        start(now)
    return result


def ways(truth: Truth, seed: int) -> dict[str, Any]:
    return {
        "agentorch": Engine(truth, Weights(), 0.02, seed, True),
        "agentorch, no exploration": Engine(truth, Weights(), 0.0, seed, True),
        "agentorch, load as tie-break": Engine(truth, Weights(1.0, 0.001), 0.02, seed, True),
        "random": Simple(truth, "random", seed),
        "round robin": Simple(truth, "round robin", seed),
        "least loaded": Simple(truth, "least loaded", seed),
        "whoever is truly best": Simple(truth, "oracle", seed),
    }


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def compare(seeds: Sequence[int], loads: Sequence[float]) -> list[dict[str, Any]]:
    rows = []
    for load in loads:
        found: dict[str, list[Result]] = {}
        for seed in seeds:
            truth = world(seed)
            tasks = stream(seed, load, truth)
            for name, chooser in ways(truth, seed).items():
                found.setdefault(name, []).append(play(seed, truth, tasks, chooser))
        for name, results in found.items():
            rows.append(
                {
                    "load": load,
                    "choice": name,
                    "mean_s": statistics.mean(statistics.mean(r.latencies) for r in results),
                    "p99_s": statistics.mean(quantile(r.latencies, 0.99) for r in results),
                    "right_first_percent": 100
                    * statistics.mean(1 - r.failed_attempts / r.attempts for r in results),
                    "failed_tasks": statistics.mean(r.failed_tasks for r in results),
                    "usd_per_success": statistics.mean(r.usd / len(r.latencies) for r in results),
                }
            )
    return rows


def drop(seeds: Sequence[int], load: float) -> list[dict[str, Any]]:
    """The agent that gets most of the work is right one time in ten from the middle on."""
    rows = []
    for seed in seeds:
        truth = world(seed)
        tasks = stream(seed, load, truth)
        middle = tasks[len(tasks) // 2].at
        before = play(seed, truth, tasks, ways(truth, seed)["agentorch"])
        done = [agent for at, agent, _, _ in before.log if at < middle]
        favourite = max(set(done), key=done.count)
        truth.drops = {favourite: middle}
        for name, chooser in ways(truth, seed).items():
            result = play(seed, truth, tasks, chooser)
            mine = [at for at, agent, _, _ in result.log if agent == favourite]
            rate = sum(middle / 2 <= at < middle for at in mine) / (middle / 2)
            late = [at for at in mine if at >= middle]
            noticed = next(
                (
                    (number, at - middle)
                    for number, at in enumerate(late)
                    if sum(at <= other < at + middle / 20 for other in late) < 0.5 * rate * middle / 20
                ),
                (len(late), math.nan),
            )
            rows.append(
                {
                    "seed": seed,
                    "choice": name,
                    "share_before_percent": 100 * done.count(favourite) / len(done),
                    "noticed_after_outcomes": noticed[0],
                    "noticed_after_s": noticed[1],
                    "right_after_percent": 100
                    * statistics.mean(right for at, _, _, right in result.log if at >= middle),
                }
            )
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    keys = list(rows[0])
    width = {k: max(len(k), *(len(_text(row[k])) for row in rows)) for k in keys}
    print("  ".join(k.rjust(width[k]) for k in keys))
    for row in rows:
        print("  ".join(_text(row[k]).rjust(width[k]) for k in keys))


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.1, 0.3, 0.6])
    parser.add_argument("--drop", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    rows = drop(seeds, 0.3) if options.drop else compare(seeds, options.loads)
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        show(rows)


if __name__ == "__main__":
    main()
