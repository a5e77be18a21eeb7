"""Now and then the chief reads the votes of the past, all together: who is right, and how often?

Batch inference (`core/inference.py`) needs a history of closed answers. What it finds about the
agents of a capability replaces the simple weights only where its answers were right more often
than the votes' own on verified outcomes, which take no part in the fit. It runs in a thread, so
that nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from agentorch_cli.core.inference import MIN_TASKS, MIN_VERIFIED, infer, suits, wins
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.store.store import Store

log = logging.getLogger("agentorch.historian")

FIRST_AFTER = 60.0
EVERY = 3600.0
"""Seconds between two looks; nothing is done where nothing came in."""

Found = tuple[bool, dict[str, float], int, int]
"""Whether it won, the agents' reliabilities, and how often inference and the votes were right."""


class Historian:
    """The loop that infers."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def run(self, is_chief: Callable[[], bool]) -> None:
        """For ever, while this node is the chief."""
        wait = FIRST_AFTER
        while True:
            await asyncio.sleep(wait)
            wait = EVERY
            if not is_chief():
                continue
            try:
                await self.look()
            except DatabaseUnreachable as error:
                log.warning("cannot read the history: %s", error)
            except Exception:
                log.exception("the history could not be read; the next look tries again")

    async def look(self) -> None:
        """Infer for every capability in which enough has happened since the last look."""
        for row in await self.store.db.fetch("inferable", MIN_TASKS, MIN_VERIFIED):
            if (row["tasks"], row["verified"]) != (row["seen_tasks"], row["seen_verified"]):
                await self._infer(row["capability"], row["tasks"], row["verified"])

    async def _infer(self, capability: str, tasks: int, verified: int) -> None:
        given: dict[str, list[tuple[str, str]]] = {}
        for row in await self.store.db.fetch("history_ballots", capability):
            if row["label"]:
                given.setdefault(row["task"], []).append((row["worker"], row["label"]))
        if not suits(given):
            return
        decided = {
            r["task_id"]: r["answer"] for r in await self.store.db.fetch("decided_answers", capability)
        }
        truth = {r["task"]: r["truth"] for r in await self.store.db.fetch("history_truth", capability)}
        is_better, found, inferred_right, decided_right = await asyncio.to_thread(
            inferred, given, decided, truth
        )
        agents = sorted(found) if is_better else []
        await self.store.db.fetch("use_inference", capability, agents, [found[agent] for agent in agents])
        await self.store.db.fetch(
            "store_inference", capability, tasks, verified, inferred_right, decided_right, is_better
        )
        log.info(
            "read %d votes on %s: of those verified %d are right by inference, %d as decided",
            len(given),
            capability,
            inferred_right,
            decided_right,
        )


def inferred(
    given: Mapping[str, Sequence[tuple[str, str]]], decided: Mapping[str, str], truth: Mapping[str, str]
) -> Found:
    """Fit a history and hold it against what is known of it."""
    fit = infer(given)
    answers = fit.answers()
    known = [task for task in truth if task in answers and task in decided]
    return (
        wins(answers, decided, truth),
        {agent: min(max(fit.reliability(agent), 0.001), 0.999) for agent in fit.confusion},
        sum(answers[task] == truth[task] for task in known),
        sum(decided[task] == truth[task] for task in known),
    )
