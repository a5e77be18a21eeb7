"""The faults: each breaks something, and puts it right again where nobody else would.

What is killed is started again at once, as a supervisor would do; PostgreSQL is left to `serve`, which minds
it. A fault returns when whatever it broke could work again. What it says of itself stands in the report.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentorch_cli.chaos.processes import Child, children_of

if TYPE_CHECKING:
    from agentorch_cli.chaos.crew import Crew

Fault = Callable[["Crew", "Outage", random.Random], Awaitable[None]]


@dataclass
class Outage:
    """A stretch in which something was broken; seconds since the epoch."""

    what: str
    began: float = 0.0
    restored: float = 0.0
    """What was killed or stopped is started again."""
    answered: float = 0.0
    """From here on the database answers."""
    assigned: float = 0.0
    """The first assignment after that."""

    @property
    def recovery(self) -> float:
        """Seconds from the moment that all could work again, and the database answered, to an assignment."""
        return max(0.0, self.assigned - max(self.answered, self.restored))


async def serve_killed(crew: Crew, outage: Outage, chance: random.Random) -> None:
    crew.serve.kill()
    outage.restored = time.time()
    await asyncio.to_thread(crew.serve.start)


async def serve_stopped(crew: Crew, outage: Outage, chance: random.Random) -> None:
    """SIGSTOP, long enough now and then that its agents and its lease are given up."""
    crew.serve.send(signal.SIGSTOP)
    await asyncio.sleep(chance.choice((0.3, 1.0, 5.0)))
    crew.serve.send(signal.SIGCONT)
    outage.restored = time.time()


async def agents_killed(crew: Crew, outage: Outage, chance: random.Random) -> None:
    for agent in some(crew.agents.values(), chance):
        agent.kill()
        agent.start()
    outage.restored = time.time()


async def agents_stopped(crew: Crew, outage: Outage, chance: random.Random) -> None:
    """They hold work meanwhile, and bring it late."""
    agents = some(crew.agents.values(), chance)
    for agent in agents:
        agent.send(signal.SIGSTOP)
    await asyncio.sleep(chance.choice((0.5, 1.5, 5.0)))
    for agent in agents:
        agent.send(signal.SIGCONT)
    outage.restored = time.time()


async def clients_killed(crew: Crew, outage: Outage, chance: random.Random) -> None:
    """In the middle of a submission, perhaps."""
    for client in crew.clients:
        if client.is_alive:
            client.kill()
            client.start()
    outage.restored = time.time()


async def postgres_killed(crew: Crew, outage: Outage, chance: random.Random) -> None:
    """The postmaster; its backends notice by themselves."""
    signal_to(crew.postmaster(), signal.SIGKILL)
    outage.restored = time.time()
    await crew.until_postgres_is_new(outage.began)


async def backend_killed(crew: Crew, outage: Outage, chance: random.Random) -> None:
    """One backend; PostgreSQL then ends all others, and recovers."""
    backends = await crew.backends()
    if backends:
        signal_to(chance.choice(backends), signal.SIGKILL)
    outage.restored = time.time()


async def connections_terminated(crew: Crew, outage: Outage, chance: random.Random) -> None:
    await crew.ask(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    outage.restored = time.time()


async def postgres_frozen(crew: Crew, outage: Outage, chance: random.Random) -> None:
    """The postmaster and all that it started: connections stay open and nothing answers."""
    postmaster = crew.postmaster()
    if postmaster is None:
        return
    frozen = [postmaster, *children_of(postmaster)]
    for pid in frozen:
        signal_to(pid, signal.SIGSTOP)
    await asyncio.sleep(chance.choice((0.5, 2.0, 4.0)))
    for pid in reversed(frozen):
        signal_to(pid, signal.SIGCONT)
    outage.restored = time.time()


async def everything_killed(crew: Crew, outage: Outage, chance: random.Random) -> None:
    """Serve, agents, clients and PostgreSQL, all at once."""
    signal_to(crew.postmaster(), signal.SIGKILL)
    living: list[Child] = [*crew.agents.values(), *(client for client in crew.clients if client.is_alive)]
    for child in (crew.serve, *living):
        child.send(signal.SIGKILL)
    for child in (crew.serve, *living):
        child.kill()
    for child in living:
        child.start()
    outage.restored = time.time()
    await asyncio.to_thread(crew.serve.start)


FAULTS: dict[str, tuple[Fault, int]] = {
    "serve killed": (serve_killed, 4),
    "PostgreSQL killed": (postgres_killed, 3),
    "everything killed at once": (everything_killed, 2),
    "agents killed": (agents_killed, 3),
    "a PostgreSQL backend killed": (backend_killed, 2),
    "clients killed": (clients_killed, 2),
    "serve stopped for a while": (serve_stopped, 1),
    "agents stopped for a while": (agents_stopped, 1),
    "PostgreSQL frozen for a while": (postgres_frozen, 1),
    "connections terminated": (connections_terminated, 1),
}
"""By what they are called, with how often they come."""


def chosen(number: int, chance: random.Random) -> list[str]:
    """So many faults: each once, as far as that goes, then by how often they come; in any order."""
    names = list(FAULTS)
    picked = names[:number]
    picked += chance.choices(names, [FAULTS[name][1] for name in names], k=max(0, number - len(picked)))
    chance.shuffle(picked)
    return picked


def some(agents: Iterable[Child], chance: random.Random) -> list[Child]:
    """A third of them, and one at least."""
    known = sorted(agents, key=lambda agent: agent.name)
    return chance.sample(known, max(1, len(known) // 3))


def signal_to(pid: int | None, number: signal.Signals) -> None:
    """Nothing happens where there is no such process any more."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
