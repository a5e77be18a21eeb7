"""One node leads each pool, one is the chief of all, by leases; every node gives a sign of life.

A beat is one statement: the node's row, its leases, the heartbeats of the node's agents and
what they finished. It is all that an idle fleet costs. A lease is a row on the database's
clock, so it holds through poolers, restarts and clocks that disagree. Losing that of a pool stops new
assignments within a beat; guarded writes make the overlap harmless. The chief does what is there
once for all pools: sweeps, deadlocks, schedules, scores.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
from collections.abc import Awaitable, Callable

from agentorch_cli import __version__
from agentorch_cli.core.model import lease_of
from agentorch_cli.engine.state import State, Tally
from agentorch_cli.errors import DatabaseUnreachable
from agentorch_cli.identity import host_key, process_mark
from agentorch_cli.store.store import Store
from agentorch_cli.text import visible

log = logging.getLogger("agentorch.leader")

MONITOR = "monitor"
"""The lease of the chief; `core.model.lease_of` names those of the pools."""

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
        on_chosen: Callable[[], Awaitable[None]],
        on_stranded: Callable[[list[str]], Awaitable[None]],
        on_beat: Callable[[], Awaitable[None]],
    ) -> None:
        self.state = state
        self.store = store
        self.lease_seconds = lease_seconds
        self.on_elected = on_elected
        self.on_chosen = on_chosen
        """Awaited when this node becomes the chief."""
        self.on_stranded = on_stranded
        self.on_beat = on_beat
        """Awaited when it is known what this node leads now."""
        self.port: int | None = None
        self.epochs: dict[str, int] = {}
        """Of the leases that this node holds."""
        self._last_beat = 0.0
        self._lease_left: float | None = None
        """Seconds until the first of the leases ends that other nodes hold, when they were last seen."""
        self._is_installed = self._is_chief_installed = False
        """Whether what a leader, and the chief, does first was done to its end."""
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
        """Until the next beat: whoever waits for a lease asks when it ends, not long after."""
        regular = self.lease_seconds / 3
        if self._lease_left is None:
            return regular
        return max(SHORTEST_PAUSE, min(regular, self._lease_left + SHORTEST_PAUSE))

    def beat_soon(self) -> None:
        """A lease may be free."""
        self._soon.set()

    async def bury_the_dead(self) -> None:
        """Nodes of this host whose process is gone do not keep their leases for their full time."""
        rows = await self.store.db.fetch("nodes_here", host_key())
        dead = [row["node_id"] for row in rows if _is_dead(row["pid"], row["pid_started"])]
        if dead:
            await self.store.db.fetch("bury_dead_nodes", dead)

    async def beat(self) -> None:
        """One sign of life; takes or keeps the leases that can be had."""
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
                [MONITOR, lease_of(self.state.pool)],
                agents,
                [tallies.get(agent, _NOTHING).completed for agent in agents],
                [tallies.get(agent, _NOTHING).failed for agent in agents],
                not self.state.is_stopping,
                self.state.pool,
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
            if row["has_peers"] and not self.state.relay.has_peers:  # nobody was told so far who is here
                members = self.state.roster.members.values()
                self.state.relay.agents(m.agent_id for m in members if m.node_id == self.state.node_id)
            self.state.relay.has_other_pools = row["has_other_pools"]
            self.state.relay.has_peers = row["has_peers"] or (
                self.state.relay.has_peers and bool(self.state.elsewhere)
            )
        if row["stranded"]:
            await self.on_stranded(row["stranded"])
        await self._follow(dict(zip(row["led"] or (), row["epochs"] or (), strict=True)))
        await self.on_beat()

    async def _follow(self, epochs: dict[str, int]) -> None:
        state, lease = self.state, lease_of(self.state.pool)
        led, state.is_leader = state.is_leader, lease in epochs
        was_chief, state.is_chief = state.is_chief, MONITOR in epochs
        self.epochs = epochs
        self._is_installed &= led and state.is_leader
        self._is_chief_installed &= was_chief and state.is_chief
        if state.is_leader and not led:
            log.info("this node leads pool %s (epoch %s)", visible(state.pool), epochs[lease])
        elif led and not state.is_leader:
            log.info("this node does not lead pool %s any more", visible(state.pool))
        if state.is_chief and not was_chief:
            log.info("this node is the chief (epoch %s)", epochs[MONITOR])
        elif was_chief and not state.is_chief:
            log.info("this node is not the chief any more")
        if state.is_leader and not self._is_installed:  # or it failed half way at the last beat
            await self.on_elected()
            self._is_installed = True
        if state.is_chief and not self._is_chief_installed:
            await self.on_chosen()
            self._is_chief_installed = True

    def _doubt(self) -> None:
        """Without a beat for the whole lease somebody else may lead already."""
        if asyncio.get_running_loop().time() - self._last_beat > self.lease_seconds:
            self.state.is_leader = self.state.is_chief = False


_NOTHING = Tally()


def _is_dead(pid: int, started: str | None) -> bool:
    mark = process_mark(pid)
    return mark is None or (started is not None and mark != started)
