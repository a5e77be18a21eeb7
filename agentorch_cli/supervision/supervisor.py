"""Makes what runs equal to what is declared, and keeps it so.

One supervisor for a data directory: an engine, if it has to run one, and the agents of a file,
each as a `Child`. A declaration may be given again at any time; what is the same stays untouched,
what has changed is stopped and started, what is gone is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import agentorch_cli
from agentorch_cli.errors import NotAllowed, OrchestratorError, Unreachable, UsageError
from agentorch_cli.fleetfile import Declared, Restart
from agentorch_cli.supervision.child import Child, Pace, Program, State, in_words
from agentorch_cli.supervision.record import Record, file_of

log = logging.getLogger("agentorch.up")

SERVE: Final = "serve"
"""The engine among the processes. No agent is called so: their names end with a number."""

INHERITED: Final = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "PYTHONPATH", "PYTHONHOME", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
"""Variables that every agent sees, and those that begin with LC_; others are named by `env`."""

_BOOT = """\
import sys
sys.path.append(sys.argv.pop(1))
from agentorch_cli.supervision.replica import main
main()
"""
"""The folder of the package comes last: what the agent's own folder holds goes before it, as ever. The name
that follows it is for whoever looks at the list of processes."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a fleet stands on."""

    data_dir: Path
    pace: Pace
    stop_timeout: float
    """Seconds that an agent may finish what it does."""
    log_bytes: int
    log_files: int
    output_limit: int
    """Bytes that the command of an agent may write for one task."""
    target: Callable[[str], Mapping[str, Any]]
    """How agents come in at an engine's address: `url`, `token`, `ca`, `own`; asked anew for each start."""
    url: str | None = None
    """Of the engine that runs already."""
    serve: Callable[[str | None], Sequence[str]] | None = None
    """The command that runs the engine where none does, given its address if it ran before."""
    serve_env: Mapping[str, str] | None = None


class Supervisor:
    """Everything that runs on one ground."""

    def __init__(self, ground: Ground, on_change: Callable[[Child], None] = lambda _: None) -> None:
        self._ground = ground
        self._on_change = on_change
        self._children: dict[str, Child] = {}
        self._declared: dict[str, tuple[int, Declared]] = {}
        self._applying = asyncio.Lock()
        self._changed = asyncio.Event()
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._url.add_done_callback(lambda url: url.cancelled() or url.exception())
        self.at_once = asyncio.Event()
        """Whoever waits for agents to finish waits no longer."""

    async def open(self) -> str:
        """Start the engine if there is none; gives its address. Raises what kept it from starting."""
        ground = self._ground
        if ground.url is not None:
            self._url.set_result(ground.url)
        else:
            assert ground.serve is not None and ground.serve_env is not None
            program = Program(
                argv=self._serve_argv,
                env=ground.serve_env,
                cwd=str(Path.cwd()),
                restart=Restart.ALWAYS,
                on_word=self._engine_says,
                is_gentle=True,
            )
            self._children[SERVE] = self._child(SERVE, program)
        return await asyncio.shield(self._url)

    async def apply(
        self, wanted: Mapping[str, tuple[int, Declared]], anew: Collection[str] = ()
    ) -> dict[str, Any]:
        """Make what runs equal to this; those of `anew` are started anew although nothing was declared to
        have changed. Gives what was `started`, `changed`, and `stopped` how.
        """
        async with self._applying:
            before = self._declared
            gone = [name for name in before if name not in wanted]
            changed = [
                name
                for name in wanted
                if name in before and (name in anew or _key(before[name]) != _key(wanted[name]))
            ]
            fresh = [name for name in wanted if name not in before]
            ended = await asyncio.gather(*(self._stop(name, None) for name in (*gone, *changed)))
            for name in (*fresh, *changed):
                self._children[name] = self._child(name, self._program(name, *wanted[name]))
            self._declared = dict(wanted)
            self._children = {name: self._children[name] for name in self._order()}
        return {
            "started": fresh,
            "changed": changed,
            "stopped": [one for one in ended if one["name"] in gone],
            "unchanged": len(wanted) - len(fresh) - len(changed),
        }

    async def close(self, timeout: float | None = None) -> list[dict[str, str]]:
        """Stop the agents, then the engine; gives what ended and how."""
        async with self._applying:
            names = [name for name in self._children if name != SERVE]
            ended = list(await asyncio.gather(*(self._stop(name, timeout) for name in names)))
            self._declared = {}
            if SERVE in self._children:
                ended.append(await self._stop(SERVE, timeout))
        self._url.cancel()
        return ended

    async def settle(self, seconds: float) -> None:
        """Until everything runs, or is known not to; or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(child.state.is_settled for child in self._children.values()):
                    self._changed.clear()
                    await self._changed.wait()

    def status(self) -> list[dict[str, Any]]:
        """How each process stands."""
        return [self._row(child) for child in self._children.values()]

    def _row(self, child: Child) -> dict[str, Any]:
        declared = self._declared.get(child.name)
        return {
            "name": child.name,
            "agent": declared[1].spec.agent_id if declared else None,
            "state": str(child.state),
            "pid": child.pid,
            "starts": child.starts,
            "since": _moment(child.since),
            "next_start": None if child.next_start is None else _moment(child.next_start),
            "exit": None if child.exit_status is None else in_words(child.exit_status),
            "said": child.record.said,
            "log": str(child.record.path),
        }

    async def _stop(self, name: str, timeout: float | None) -> dict[str, str]:
        seconds = self._ground.stop_timeout if timeout is None else timeout
        child = self._children[name]
        how = await child.stop(seconds, self.at_once)
        del self._children[name]
        return {"name": name, "how": how}

    def _child(self, name: str, program: Program) -> Child:
        ground = self._ground
        record = Record(file_of(ground.data_dir, name), ground.log_bytes, ground.log_files)
        return Child(name, program, record, ground.pace, self._changes)

    def _changes(self, child: Child) -> None:
        if child.name == SERVE and child.starts == 1 and child.state in (State.WAITING, State.CRASHING):
            self._fail(child)
        self._changed.set()
        try:
            self._on_change(child)
        except Exception:  # whoever listens is no part of what keeps a process running
            log.exception("%s is %s, and telling so failed", child.name, child.state)

    def _order(self) -> list[str]:
        """The engine first, then the agents as they are declared."""
        return [name for name in (SERVE, *self._declared) if name in self._children]

    # --- the engine ---------------------------------------------------------------------------

    def _serve_argv(self) -> Sequence[str]:
        assert self._ground.serve is not None
        return self._ground.serve(self._url.result() if self._url.done() else None)

    def _engine_says(self, word: dict[str, Any]) -> State | None:
        if word.get("event") != "ready":
            return None
        if not self._url.done():
            self._url.set_result(str(word["url"]))
        return State.RUNNING

    def _fail(self, child: Child) -> None:
        """An engine that never came up would not come up again: whoever started it hears why."""
        if self._url.done():
            return
        said = child.record.said or f"it ended with {in_words(child.exit_status)}"
        kinds = {kind.exit_code: kind for kind in (UsageError, NotAllowed, Unreachable)}
        kind = kinds.get(child.exit_status or 0, OrchestratorError)
        self._url.set_exception(
            kind(f"the engine cannot start: {said}", hint=f"Its log is {child.record.path}.")
        )

    # --- agents -------------------------------------------------------------------------------

    def _program(self, name: str, number: int, declared: Declared) -> Program:
        spec, ground = declared.spec, self._ground

        async def first_words() -> Mapping[str, Any]:
            url = await asyncio.shield(self._url)
            return {
                "agent": {
                    "agent_id": name,
                    "type": spec.type,
                    "capabilities": spec.capabilities,
                    "slots": spec.slots,
                    "pool": spec.pool,
                    "metadata": spec.metadata,
                },
                "exec": spec.exec,
                "python": declared.python,
                "env": declared.env,
                "output_limit": ground.output_limit,
                "drain_timeout": ground.stop_timeout,
                **ground.target(url),
            }

        return Program(
            argv=lambda: (sys.executable, "-u", "-P", "-c", _BOOT, str(_package_folder()), name),
            env=_environment(declared.env, {"AGENTORCH_AGENT": name, "AGENTORCH_REPLICA": str(number)}),
            cwd=declared.cwd,
            restart=declared.restart,
            first_words=first_words,
            on_word=_agent_says,
        )


def _agent_says(word: dict[str, Any]) -> State | None:
    match word.get("state"):
        case "connected":
            return State.RUNNING
        case "lost" | "unreachable":
            return State.LOST
    return None


def _environment(allowed: Sequence[str], own: Mapping[str, str]) -> dict[str, str]:
    names = {*INHERITED, *allowed, *(name for name in os.environ if name.startswith("LC_"))}
    return {name: os.environ[name] for name in sorted(names) if name in os.environ} | dict(own)


def _package_folder() -> Path:
    return Path(agentorch_cli.__file__).parent.parent


def _key(one: tuple[int, Declared]) -> tuple[int, Declared]:
    """What makes a process another one; how many there are of its kind does not."""
    return one[0], replace(one[1], replicas=0)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
