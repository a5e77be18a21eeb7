"""Runs schedules when their time comes, on the node that is the chief.

It sleeps until the next one is due, and is woken when somebody changes one. While there is no schedule
it asks nothing: whether a hint was lost is part of the one question that the lifeline's sweep asks anyway.
The times are the database's; `store.schedules` does the rest, one transaction for each run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from agentorch_cli.engine.state import State
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.store.schedules import Run, run_due, run_key, seconds_to_next, traced
from agentorch_cli.store.store import Store
from agentorch_cli.text import visible

log = logging.getLogger("agentorch.timetable")

LONGEST_SLEEP = 3600.0
"""Seconds: the clock of the database may be set."""

TURN_AWAY = 0.5
"""Seconds before a look at schedules that another node has in its hands."""


class Timetable:
    """The loop that runs schedules."""

    def __init__(self, state: State, store: Store, *, defaults: Mapping[str, Any]) -> None:
        self.state = state
        self.store = store
        self.defaults = defaults
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """A schedule was changed, or is due, or this node is the chief now."""
        self._wake.set()

    async def run(self) -> None:
        """For ever. No error of one look ends it."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self.state.is_chief or self.state.is_stopping:
                continue
            try:
                await self.step()
            except DatabaseUnreachable as error:
                log.warning("cannot run schedules: %s", error)
                self._wake_in(0.5)
            except Exception:
                log.exception("schedules could not be looked at; trying again")
                self.state.bus.publish("error", where="timetable")
                self._wake_in(5.0)

    async def step(self) -> list[Run]:
        """Run what is due, and set the alarm for what comes next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        runs: list[Run] = []
        while (seconds := await seconds_to_next(self.store)) is not None:
            if seconds > 0:
                self._wake_in(seconds + 0.001)
                break
            run = await traced(self.state.traces, partial(run_due, self.store, self.defaults))
            if run is None:
                self._wake_in(TURN_AWAY)
                break
            self._tell(run)
            runs.append(run)
        return runs

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(min(seconds, LONGEST_SLEEP), self.wake)

    def _tell(self, run: Run) -> None:
        if run.error is not None:
            level = logging.WARNING if run.is_news else logging.DEBUG
            log.log(level, "schedule %r cannot run: %s", run.name, visible(run.error))
        elif run.at is not None:
            self.state.count("schedule_ran")
            self.state.bus.publish(
                "schedule_ran", schedule=run.name, at=run.at, tasks=[one.task_id for one in run.stored]
            )
            log.info("%s: submitted, tasks: %d", run_key(run.name, run.at), len(run.stored))
        if run.skipped:
            log.info("schedule %r left out runs: %d", run.name, run.skipped)
