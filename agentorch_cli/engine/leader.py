"""One node leads, by a lease; every node gives a sign of life.

A beat is one statement: the node's row, the lease, the heartbeats of the node's agents and
what they finished. It is all that an idle fleet costs. The lease is a row on the database's
clock, so it holds through poolers, restarts and clocks that disagree. Losing it stops new
assignments within a beat; guarded writes make the overlap harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
from collections.abc import Awaitable, Callable

from agentorch_cli import __version__
from agentorch_cli.engine.state import State, Tally
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.identity import host_key, process_mark
from agentorch_cli.store.store import Store

log = logging.getLogger("agentorch.leader")

LEASE = "scheduler"

SHORTEST_PAUSE = 0.05
"""Seconds between two beats at least."""


class Leader:
    """The loop that beats."""

    def __init__(
        self,
        state: State,
        store: Store,
        *,
        lease_seconds: float,
        on_elected: Callable[[], Awaitable[None]],
        on_stranded: Callable[[list[str]], Awaitable[None]],
    ) -> None:
        self.state = state
        self.store = store
        self.lease_seconds = lease_seconds
        self.on_elected = on_elected
        self.on_stranded = on_stranded
        self.port: int | None = None
        self.epoch: int | None = None
        self._last_beat = 0.0
        self._lease_left: float | None = None
        """Seconds for which another node's lease holds, when it was last seen."""
        self._soon = asyncio.Event()

    async def run(self) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._soon.wait()
            self._soon.clear()
            try:
                await self.beat()
            except DatabaseUnreachable as error:
                log.warning("no sign of life could be given: %s", error)
                self._doubt()
            except Exception:
                log.exception("a beat failed; the next one tries again")
                self._doubt()

    def _pause(self) -> float:
        """Until the next beat: whoever waits for the lead asks when the lease ends, not long after."""
        regular = self.lease_seconds / 3
        if self.state.is_leader or self._lease_left is None:
            return regular
        return max(SHORTEST_PAUSE, min(regular, self._lease_left + SHORTEST_PAUSE))

    def beat_soon(self) -> None:
        """The lead may be free."""
        self._soon.set()

    async def bury_the_dead(self) -> None:
        """Nodes of this host whose process is gone do not keep their lease for its full time."""
        rows = await self.store.db.fetch("nodes_here", host_key())
        dead = [row["node_id"] for row in rows if _is_dead(row["pid"], row["pid_started"])]
        if dead:
            await self.store.db.fetch("bury_dead_nodes", dead)

    async def beat(self) -> None:
        """One sign of life; takes or keeps the lead if it can be had."""
        tallies, self.state.tallies = self.state.tallies, {}
        heard, self.state.heard = self.state.heard | tallies.keys(), set()
        agents = sorted(heard)
        try:
            row = await self.store.db.fetch_one(
                "beat",
                self.store.node_id,
                host_key(),
                platform.node(),
                self.port,
                os.getpid(),
                process_mark(os.getpid()),
                __version__,
                self.lease_seconds,
                LEASE,
                agents,
                [tallies.get(agent, _NOTHING).completed for agent in agents],
                [tallies.get(agent, _NOTHING).failed for agent in agents],
                not self.state.is_stopping,
            )
        except BaseException:
            for agent, tally in tallies.items():
                kept = self.state.tallies.setdefault(agent, Tally())
                kept.completed += tally.completed
                kept.failed += tally.failed
            raise
        self._last_beat = asyncio.get_running_loop().time()
        assert row is not None  # a select without from has one row
        self._lease_left = row["lease_seconds"]
        if self.state.relay is not None:
            self.state.relay.has_peers = row["has_peers"] or (
                self.state.relay.has_peers and bool(self.state.elsewhere)
            )
        if row["stranded"]:
            await self.on_stranded(row["stranded"])
        await self._follow(row["epoch"])

    async def _follow(self, epoch: int | None) -> None:
        was_leader, self.state.is_leader, self.epoch = self.state.is_leader, epoch is not None, epoch
        if self.state.is_leader and not was_leader:
            log.info("this node leads (epoch %s)", epoch)
            await self.on_elected()
        elif was_leader and not self.state.is_leader:
            log.info("this node does not lead any more")

    def _doubt(self) -> None:
        """Without a beat for the whole lease somebody else may lead already."""
        if asyncio.get_running_loop().time() - self._last_beat > self.lease_seconds:
            self.state.is_leader = False


_NOTHING = Tally()


def _is_dead(pid: int, started: str | None) -> bool:
    mark = process_mark(pid)
    return mark is None or (started is not None and mark != started)
