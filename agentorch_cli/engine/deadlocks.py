"""The monitor: looks for work that waits for itself, while this node leads.

It looks at everything every so often, and soon after something happened that may close a circle: edges
between tasks that exist, work that waits while it holds a slot, an agent that went away, a
demand that nobody meets. Looks are rationed: one that took long is not followed by another at once,
so that the monitor never takes more than a quarter of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from agentorch_cli.core.deadlock import Kind
from agentorch_cli.core.ladder import Finding
from agentorch_cli.engine.state import State
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.store.deadlocks import Deadlocks, Outcome

log = logging.getLogger("agentorch.deadlocks")

OPEN_AGAIN = 5.0
"""Seconds between looks while a deadlock stays: it may have ended."""

RATION = 3.0
"""A look may begin this many times the last one's duration after that one ended."""


class Monitor:
    """The loop that looks for deadlocks."""

    def __init__(self, state: State, deadlocks: Deadlocks, *, sweep_interval: float, wait: float) -> None:
        self.state = state
        self.deadlocks = deadlocks
        self.sweep_interval = sweep_interval
        self.wait = wait
        self._began = asyncio.get_running_loop().time()
        self._due = self._began + sweep_interval
        self._not_before = 0.0
        self._wake = asyncio.Event()
        self._open = 0
        self.take_away: Callable[[str, str, str], None] = lambda message_id, agent_id, reason: None
        """Ends an attempt that ran for too long."""
        self._silent: list[Finding] = []

    def look_soon(self, seconds: float | None = None) -> None:
        """Something happened that may have closed a circle; by default after the time that waits may take."""
        due = asyncio.get_running_loop().time() + (self.wait if seconds is None else seconds)
        if due < self._due:
            self._due = due
            self._wake.set()

    def agent_came(self) -> None:
        """It may be what somebody waits for."""
        if self._open:
            self.look_soon(0.1)

    def went_silent(self, agent_id: str, tasks: Sequence[str], seconds: float) -> None:
        """An agent holds work and gives no sign of life; its work goes elsewhere."""
        self._silent.append(
            Finding(
                Kind.TIMEOUT,
                f"{Kind.TIMEOUT} {agent_id} {' '.join(sorted(tasks))}",
                tuple(tasks),
                f"agent {agent_id} has been silent for {seconds:g} s",
                waited_s=seconds,
            )
        )
        self.look_soon(0.0)

    async def run(self) -> None:
        """For ever. No error of one look ends it."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            pause = max(self._due, self._not_before) - loop.time()
            if pause > 0:
                with contextlib.suppress(TimeoutError):
                    # not wait_for: before Python 3.12 that forgets to be cancelled where both happen at once
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                    continue
            began = loop.time()
            self._due = began + self.sweep_interval
            if self.state.is_chief and not self.state.is_stopping:
                await self._surely()
            self._not_before = loop.time() + RATION * (loop.time() - began)

    async def _surely(self) -> None:
        try:
            await self.step()
        except DatabaseUnreachable as error:
            log.warning("cannot look for deadlocks: %s", error)
            self.look_soon()
        except Exception:
            log.exception("a look for deadlocks failed; the next one tries again")
            self.state.bus.publish("error", where="deadlocks")

    async def step(self) -> Outcome:
        """One look, with all that follows from it."""
        await self._note_silent()
        uptime = asyncio.get_running_loop().time() - self._began
        # Agents that lost their session when this node began may still be on their way back to it.
        grace = self.deadlocks.grace
        outcome = await self.deadlocks.pass_once(least_away=1e9 if uptime < grace else 0.0)
        self.state.count("deadlock_detected", len(outcome.new))
        self.state.count("deadlock_resolved", len(outcome.done))
        self.state.count("deadlock_looks")
        for mark, step in outcome.done.items():
            self.state.bus.publish("deadlock_resolved", mark=mark, resolution=step.sentence)
            self.state.count(f"deadlock_{step.act}")
        for mark in outcome.new:
            self.state.bus.publish("deadlock_detected", mark=mark)
        if outcome.has_work:
            await self._take_overdue()
        self._open = outcome.open
        if outcome.done or outcome.unsure:
            self.look_soon()  # what was behind it may be knotted too
        elif outcome.open:
            self.look_soon(OPEN_AGAIN)
        return outcome

    async def _take_overdue(self) -> None:
        """Attempts past twice their time limit, which their own node should have taken away."""
        rows = await self.deadlocks.overdue()
        if not rows:
            return
        found = [
            Finding(
                Kind.TIMEOUT,
                f"{Kind.TIMEOUT} {row['message_id']}",
                (row["task_id"],),
                f"agent {row['agent_id']} has run for {row['ran_s']:.0f} s;"
                f" the limit is {row['timeout_seconds']:g} s",
                waited_s=row["ran_s"],
            )
            for row in rows
        ]
        await self.deadlocks.note_ended(found, "its work was taken away")
        self.state.count("deadlock_detected", len(found))
        self.state.count("deadlock_resolved", len(found))
        for row, one in zip(rows, found, strict=True):
            self.take_away(str(row["message_id"]), row["agent_id"], one.reason)

    async def _note_silent(self) -> None:
        silent = list(self._silent)  # more may come while these are written
        if silent:
            await self.deadlocks.note_ended(silent, "its work was given to others")
            del self._silent[: len(silent)]
            self.state.count("deadlock_detected", len(silent))
            self.state.count("deadlock_resolved", len(silent))
