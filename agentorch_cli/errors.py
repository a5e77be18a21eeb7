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

A class's docstring is its default sentence. A message says what was tried and
what was found; the hint says what to do next. Only the outermost layer (the
command line, the gateway, the control endpoint) prints: all others raise.
"""

from __future__ import annotations

from typing import Any, ClassVar


class OrchestratorError(Exception):
    """Something went wrong that agentorch has no better word for."""

    code: ClassVar[str] = "bug"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        where: str | None = None,
        **details: Any,
    ) -> None:
        """`where` names the place (`file:line: field`), `details` go to the JSON form."""
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.hint = hint
        self.where = where
        self.details = details
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def to_json(self) -> dict[str, Any]:
        """The same error for `--json` and for the wire."""
        document: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "exit_code": self.exit_code,
        }
        if self.where:
            document["where"] = self.where
        if self.hint:
            document["hint"] = self.hint
        if self.details:
            document["details"] = self.details
        return document


class UsageError(OrchestratorError):
    """The command was not understood."""

    code, exit_code = "usage", 2


class InvalidFile(UsageError):
    """The file cannot be read as what it should be."""

    code = "invalid_file"


class InvalidConfig(UsageError):
    """The configuration is not valid."""

    code = "invalid_config"


class InvalidTask(UsageError):
    """The task is not valid."""

    code = "invalid_task"


class InvalidMessage(UsageError):
    """The frame is not valid."""

    code = "invalid_message"


class TaskFailed(OrchestratorError):
    """The task failed."""

    code, exit_code = "task_failed", 3


class ConsensusNotReached(OrchestratorError):
    """The agents did not agree."""

    code, exit_code = "consensus_not_reached", 3


class ProofFailed(OrchestratorError):
    """A promise was broken in a trial."""

    code, exit_code = "proof_failed", 3


class NotAllowed(OrchestratorError):
    """That is not allowed."""

    code, exit_code = "not_allowed", 4


class Unauthorized(NotAllowed):
    """The token is missing, wrong, expired or for somebody else."""

    code = "unauthorized"


class Unreachable(OrchestratorError):
    """Something that is needed does not answer."""

    code, exit_code = "unreachable", 5


class DatabaseUnreachable(Unreachable):
    """PostgreSQL does not answer."""

    code = "database_unreachable"


class SchemaMismatch(Unreachable):
    """The schema in the database is not the one that this program needs."""

    code = "schema_mismatch"


class EmbeddedFailed(Unreachable):
    """The embedded PostgreSQL cannot be started."""

    code = "embedded_failed"


class PortTaken(Unreachable):
    """The port is taken."""

    code = "port_taken"


class ServerUnreachable(Unreachable):
    """The server does not answer."""

    code = "server_unreachable"


class WaitTimedOut(OrchestratorError):
    """The wait ended before the work did."""

    code, exit_code = "wait_timed_out", 6


class NotFound(OrchestratorError):
    """There is no such thing."""

    code, exit_code = "not_found", 7


class Conflict(OrchestratorError):
    """That does not go together with what is there."""

    code, exit_code = "conflict", 8


class Partial(OrchestratorError):
    """Some of it was done, some was not."""

    code, exit_code = "partial", 9
