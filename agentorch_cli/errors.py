"""Every error a user can meet, in one tree: a code, a sentence, an exit code.

    OrchestratorError                 bug                    1
    ├── UsageError                    usage                  2
    │   ├── InvalidFile               invalid_file           2
    │   ├── InvalidConfig             invalid_config         2
    │   ├── InvalidTask               invalid_task           2
    │   └── InvalidMessage            invalid_message        2
    ├── TaskFailed                    task_failed            3
    ├── ConsensusNotReached           consensus_not_reached  3
    ├── ProofFailed                   proof_failed           3
    ├── NotAllowed                    not_allowed            4
    │   └── Unauthorized              unauthorized           4
    ├── Unreachable                   unreachable            5
    │   ├── DatabaseUnreachable       database_unreachable   5
    │   ├── SchemaMismatch            schema_mismatch        5
    │   ├── EmbeddedFailed            embedded_failed        5
    │   ├── PortTaken                 port_taken             5
    │   └── ServerUnreachable         server_unreachable     5
    ├── WaitTimedOut                  wait_timed_out         6
    ├── NotFound                      not_found              7
    ├── Conflict                      conflict               8
    └── Partial                       partial                9

A class's docstring is its default sentence. Of each error there is told: the code, what went
wrong (`message`), `where`, `why`, one command to run next (`fix`), and the exit code. `why` and
`fix` are the class's own where nobody knew better; a `hint` is a remedy that is no command. Only
the outermost layer (the command line, the gateway, the control endpoint) prints: all others
raise. `docs/errors.md` is written from this page (`scripts/errors-page`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar


class OrchestratorError(Exception):
    """Something went wrong that agentorch has no better word for."""

    code: str = "bug"
    exit_code: int = 1
    usual_why: ClassVar[str] = "Something happened that the program does not expect: a mistake in agentorch."
    usual_fix: ClassVar[str] = "agentorch doctor"

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        where: str | None = None,
        why: str | None = None,
        fix: str | None = None,
        **details: Any,
    ) -> None:
        """`where` names the place (`file:line: field`), `why` is the cause as a sentence, `fix` one
        command that mends it or shows what to mend, `hint` a remedy in words; `details` go to the JSON form.
        """
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.hint = hint
        self.where = where
        self.why = why or self.usual_why
        self.fix = fix or self.usual_fix
        self.details = details
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    @property
    def knows_why(self) -> bool:
        """Whether the cause is this error's own, and not only what is usual for its class."""
        return self.why != self.usual_why

    @property
    def knows_fix(self) -> bool:
        """Whether the command is this error's own."""
        return self.fix != self.usual_fix

    def to_json(self) -> dict[str, Any]:
        """The same error for `--json` and for the wire."""
        document: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "why": self.why,
            "fix": self.fix,
            "exit_code": self.exit_code,
        }
        if self.hint:
            document["hint"] = self.hint
        if self.details:
            document["details"] = self.details
        return document


class UsageError(OrchestratorError):
    """The command was not understood."""

    code, exit_code = "usage", 2
    usual_why = "The words of the command line, or the request, are not what the command takes."
    usual_fix = "agentorch help"


class InvalidFile(UsageError):
    """The file cannot be read as what it should be."""

    code = "invalid_file"
    usual_why = "It is missing, unreadable, too large, or not the TOML, JSON or JSONL that it should be."
    usual_fix = "agentorch help task-file"


class InvalidConfig(UsageError):
    """The configuration is not valid."""

    code = "invalid_config"
    usual_why = "A file, a variable or an option sets what is no setting, or one to what it cannot be."
    usual_fix = "agentorch help config"


class InvalidTask(UsageError):
    """The task is not valid."""

    code = "invalid_task"
    usual_why = "A key is unknown, a value out of its range, or two keys contradict each other."
    usual_fix = "agentorch help task-file"


class InvalidMessage(UsageError):
    """The frame is not valid."""

    code = "invalid_message"
    usual_why = "An agent or a client does not speak the protocol, or another version of it."
    usual_fix = "agentorch help protocol"


class TaskFailed(OrchestratorError):
    """The task failed."""

    code, exit_code = "task_failed", 3
    usual_why = "Every attempt failed, or something that the task needs did."
    usual_fix = "agentorch task list --status failed"


class ConsensusNotReached(OrchestratorError):
    """The agents did not agree."""

    code, exit_code = "consensus_not_reached", 3
    usual_why = "Too few voters gave the same answer, or too few answered at all."
    usual_fix = "agentorch consensus list"


class ProofFailed(OrchestratorError):
    """A promise was broken in a trial."""

    code, exit_code = "proof_failed", 3
    usual_why = "What the trial saw contradicts what is promised; its folder holds the evidence."
    usual_fix = "agentorch chaos --keep"


class NotAllowed(OrchestratorError):
    """That is not allowed."""

    code, exit_code = "not_allowed", 4
    usual_why = "Whoever asks has no right to it, here or on the server."
    usual_fix = "agentorch token list"


class Unauthorized(NotAllowed):
    """The token is missing, wrong, expired or for somebody else."""

    code = "unauthorized"
    usual_why = "The server asks for a token, and takes only those that it gave out and did not revoke."
    usual_fix = "agentorch token create NAME"


class Unreachable(OrchestratorError):
    """Something that is needed does not answer."""

    code, exit_code = "unreachable", 5
    usual_why = "It is not running, is too busy, or the way to it is broken."
    usual_fix = "agentorch doctor"


class DatabaseUnreachable(Unreachable):
    """PostgreSQL does not answer."""

    code = "database_unreachable"
    usual_why = "It is not running, refuses the user, or the address is another one."
    usual_fix = "agentorch doctor"


class SchemaMismatch(Unreachable):
    """The schema in the database is not the one that this program needs."""

    code = "schema_mismatch"
    usual_why = "Another version of agentorch made the tables, or nobody has made them yet."
    usual_fix = "agentorch init-db"


class EmbeddedFailed(Unreachable):
    """The embedded PostgreSQL cannot be started."""

    code = "embedded_failed"
    usual_why = "The data directory, the disk or the account is not fit for it; its log says which."
    usual_fix = "agentorch doctor"


class PortTaken(Unreachable):
    """The port is taken."""

    code = "port_taken"
    usual_why = "Another program listens there, perhaps another serve."
    usual_fix = "agentorch serve --port 0"


class ServerUnreachable(Unreachable):
    """The server does not answer."""

    code = "server_unreachable"
    usual_why = "No serve is running there, the address is wrong, or the way to it is broken."
    usual_fix = "agentorch profile list"


class WaitTimedOut(OrchestratorError):
    """The wait ended before the work did."""

    code, exit_code = "wait_timed_out", 6
    usual_why = "The work goes on; only the waiting ended."
    usual_fix = "agentorch status"


class NotFound(OrchestratorError):
    """There is no such thing."""

    code, exit_code = "not_found", 7
    usual_why = "It was never there, was removed, or is kept in another database or on another server."
    usual_fix = "agentorch status"


class Conflict(OrchestratorError):
    """That does not go together with what is there."""

    code, exit_code = "conflict", 8
    usual_why = "It is there already, or has gone on meanwhile, so that this cannot be done to it any more."
    usual_fix = "agentorch status"


class Partial(OrchestratorError):
    """Some of it was done, some was not."""

    code, exit_code = "partial", 9
    usual_why = "Each part is done by itself; what stopped the others is said for each of them."
    usual_fix = "agentorch status"


@contextlib.contextmanager
def fixed_by(*words: str) -> Iterator[None]:
    """Inside, what is wrong with a file is mended by this command where nobody knows a better one: the
    usual one is about task files.
    """
    try:
        yield
    except (InvalidFile, InvalidTask) as error:
        if not error.knows_fix:
            error.fix = command(*words)
        raise


def command(*words: str) -> str:
    """A command line of this program, for `fix`: what needs quotes has them."""
    import shlex

    return shlex.join(("agentorch", *words))
