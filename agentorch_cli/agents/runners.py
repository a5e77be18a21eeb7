"""Anything can be an agent: handlers out of a command line, or out of a function's name.

A command gets one task as a JSON document on stdin and prints the result as JSON on stdout. An exit
status other than 0 is a failed attempt, with the end of stderr as its message. It runs in a process
group of its own, with a small environment and no descriptors but its three pipes, and nothing that
it started outlives it. What it used, it may write as JSON into the file that AGENTORCH_USAGE names.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from agentorch_cli.agents.process import End, Finished, run_process
from agentorch_cli.agents.text import plain
from agentorch_cli.agents.work import Work, WorkFailed
from agentorch_cli.errors import UsageError

logger = logging.getLogger("agentorch.agent")

ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR")
"""What a command inherits, besides what its handler allows."""

USAGE = ("inputTokens", "outputTokens", "costUsd")
USAGE_LIMIT_BYTES = 4096

OUTPUT_LIMIT_BYTES = 1024 * 1024
KILL_GRACE_SECONDS = 2.0
SHOWN_OUTPUT_CHARACTERS = 200


def exec_handler(
    command: str | Sequence[str],
    *,
    env_allow: Sequence[str] = (),
    timeout: float | None = None,
    output_limit: int = OUTPUT_LIMIT_BYTES,
    cwd: str | Path | None = None,
    kill_grace: float = KILL_GRACE_SECONDS,
) -> Callable[[Work], Awaitable[Any]]:
    """A handler that runs the command once per task. A string goes to `/bin/sh -c`, a list as it is.

    `timeout` and `kill_grace` are seconds; `output_limit` is bytes, for stdout and stderr each.
    Raises UsageError for an empty command.
    """
    argv = ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)
    if not command or not argv[0] or (isinstance(command, str) and not command.strip()):
        raise UsageError("the command is empty", hint='Name a program, as in --exec "python3 work.py".')
    directory = os.fspath(cwd) if cwd is not None else None

    async def run_command(work: Work) -> Any:
        usage = Path(tempfile.gettempdir()) / f"agentorch-usage-{work.message_id}.json"
        try:
            finished = await run_process(
                argv,
                stdin=orjson.dumps(work.to_document()),
                env={**environment(work, env_allow), "AGENTORCH_USAGE": os.fspath(usage)},
                cwd=directory,
                timeout=timeout,
                output_limit=output_limit,
                kill_grace=kill_grace,
            )
        except (OSError, ValueError) as error:
            raise WorkFailed(f"{argv[0]} cannot be started: {error}", code="exec_not_started") from error
        finally:
            work.usage = take_usage(usage)
        return result_of(finished, timeout, output_limit)

    return run_command


def take_usage(path: Path) -> dict[str, Any] | None:
    """What a command says that it used; the file is taken away. None where it says nothing readable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    try:
        said = orjson.loads(os.read(descriptor, USAGE_LIMIT_BYTES))
    except (OSError, orjson.JSONDecodeError):
        said = None
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()
    usage = {key: said[key] for key in USAGE if key in said} if isinstance(said, dict) else {}
    if usage and all(_is_amount(value, key) for key, value in usage.items()):
        return usage
    logger.warning("the usage that a command wrote cannot be read: %s", plain(repr(said), 200))
    return None


def _is_amount(value: Any, key: str) -> bool:
    kinds, most = ((int, float), 1e9) if key == "costUsd" else ((int,), 10**15)
    return type(value) in kinds and 0 <= value <= most


def environment(work: Work, env_allow: Sequence[str]) -> dict[str, str]:
    """What the command may know of this machine, and what its task is called."""
    inherited = {name: os.environ[name] for name in (*ENVIRONMENT, *env_allow) if name in os.environ}
    return {
        "PATH": os.defpath,
        **inherited,
        "AGENTORCH_TASK_ID": work.task_id,
        "AGENTORCH_TASK_TYPE": work.type,
        "AGENTORCH_MESSAGE_ID": work.message_id,
        "AGENTORCH_ATTEMPT": str(work.attempt),
        "AGENTORCH_ROLE": work.role or "",
        **({"TRACEPARENT": work.traceparent} if work.traceparent is not None else {}),
    }


def result_of(finished: Finished, timeout: float | None, output_limit: int) -> Any:
    """The JSON on stdout; raises WorkFailed for everything else that can have happened."""
    match finished.end:
        case End.TIMEOUT:
            raise WorkFailed(
                _with_tail(f"the command was killed after {timeout:g} s", finished), "exec_timeout"
            )
        case End.FLOOD:
            sentence = f"the command wrote more than {output_limit:,} bytes and was killed"
            raise WorkFailed(_with_tail(sentence, finished), "exec_output_limit")
        case End.EXIT if finished.status:
            raise WorkFailed(_with_tail(_exit_sentence(finished.status), finished), "exec_failed")
    return _json(finished)


def python_handler(name: str) -> Callable[[Work], Any]:
    """The function that `module:function` names; it takes a `Work`, like any handler.

    The working directory is searched first, as `python -m` does. Raises UsageError.
    """
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise UsageError(f"{name!r} does not name a function", hint="Write it as module:function.")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        # The user's module runs here, and may raise anything at all.
        sentence = plain(f"{type(error).__name__}: {error}", 500)
        raise UsageError(f"module {module_name} cannot be imported: {sentence}") from error
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise UsageError(f"module {module_name} has no {path}")
    if not callable(found):
        raise UsageError(f"{name} is not a function")
    handler: Callable[[Work], Any] = found
    return handler


def _json(finished: Finished) -> Any:
    try:
        return orjson.loads(finished.stdout)
    except orjson.JSONDecodeError as error:
        shown = plain(finished.stdout[: 4 * SHOWN_OUTPUT_CHARACTERS], SHOWN_OUTPUT_CHARACTERS)
        said = f"it began with {shown!r}" if finished.stdout.strip() else "it was empty"
        sentence = f"the command's output is not JSON ({error}): {said}"
        raise WorkFailed(_with_tail(sentence, finished), "exec_not_json") from error


def _exit_sentence(status: int) -> str:
    if status > 0:
        return f"the command ended with exit status {status}"
    try:
        return f"the command was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"the command was ended by signal {-status}"


def _with_tail(sentence: str, finished: Finished) -> str:
    tail = finished.stderr_tail.strip()
    return f"{sentence}; stderr ended with:\n{plain(tail, 1_500)}" if tail else sentence
