"""Where the program begins and ends: the one place that prints errors and gives exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT


def main() -> NoReturn:
    """The command `agentorch`."""
    try:
        _open_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            # a terminal that cannot show a letter gets its code instead of an error
            getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _end)
        if "_AGENTORCH_COMPLETE" in os.environ:
            from agentorch_cli.cli import completing

            completing.main()
            sys.exit(0)
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:
        code = _leave_pipe() if isinstance(error, BrokenPipeError) else _give_up_on_output(error)
    except KeyboardInterrupt:
        code = INTERRUPTED
    _let_go_of_stderr()
    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a late Ctrl-C has nothing left to stop
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line in this process, tell what went wrong, and give the exit code."""
    import typer

    from agentorch_cli.cli import failure
    from agentorch_cli.cli.app import build
    from agentorch_cli.cli.session import Session
    from agentorch_cli.errors import OrchestratorError

    session = Session()

    def wants_json() -> bool:
        """Also where the parser failed before it came to the option."""
        return session.as_json or session.output in ("json", "jsonl") or "--json" in arguments

    try:
        command = build()
        with command.make_context("agentorch", arguments, obj=session) as ctx:
            command.invoke(ctx)
        return 0
    except OrchestratorError as error:
        return failure.report(error, wants_json())
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _leave_pipe()
    except typer.Exit as end:
        return end.exit_code
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            return failure.report(failure.from_bug(error, session), wants_json())
        return _give_up_on_output(error, is_json=wants_json())
    except Exception as error:
        if hasattr(error, "format_message"):  # what the parser raises for wrong usage
            return failure.report(failure.from_parser(error), wants_json())
        return failure.report(failure.from_bug(error, session), wants_json())


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _open_closed_streams() -> None:
    """A caller may have closed stdin, stdout or stderr: `agentorch status >&-`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  it stays open for good


def _give_up_on_output(error: OSError, *, is_json: bool = False) -> int:
    """What is left in the buffer cannot be written; say so, and do not try again at the very end."""
    from agentorch_cli.cli import failure
    from agentorch_cli.errors import Unreachable

    _leave_pipe()
    reason = os.strerror(error.errno or errno.EIO).lower()
    full = Unreachable(f"the output cannot be written: {reason}", hint="make room there, or write elsewhere")
    return failure.report(full, is_json)


def _let_go_of_stderr() -> None:
    """What could not be said stays unsaid: the interpreter's last flush would change the exit code."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _leave_pipe() -> int:
    """Whoever read our output has seen enough, which is no failure: `agentorch task list | head`."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())  # so that the last flush of the interpreter has somewhere to go
    return 0


if __name__ == "__main__":
    main()
