"""The frames of the agent protocol, as models: for checking, and for the JSON Schema.

Keys are camelCase on the wire and snake_case here. Unknown keys are ignored. The gateway
reads the common frames without a model; whatever does not look right there comes here to
be refused with the name of the field that is wrong.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from agentorch_cli.core.model import MAX_NAME, NAME_PATTERN
from agentorch_cli.errors import InvalidMessage
from agentorch_cli.sentences import explain

PROTOCOL_VERSION: Final = 1

MAX_METADATA: Final = 64 * 1024
"""Bytes of an agent's metadata as JSON."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN)]
"""As in files."""

MessageId = Annotated[str, Field(min_length=1, max_length=100)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Frame(BaseModel):
    """Any frame."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", strict=True)


class Usage(Frame):
    """What an attempt has used; all of it so far, not the difference."""

    input_tokens: Annotated[int, Field(ge=0, le=10**15)] | None = None
    output_tokens: Annotated[int, Field(ge=0, le=10**15)] | None = None
    cost_usd: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None


class ErrorBody(Frame):
    """Why an attempt failed."""

    message: Annotated[str, Field(max_length=100_000)]
    code: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    retryable: StrictBool = True


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    size = len(orjson.dumps(metadata))
    if size > MAX_METADATA:
        raise ValueError(f"has {size} bytes as JSON; at most {MAX_METADATA} are taken")
    return metadata


class Register(Frame):
    """The agent joins the fleet."""

    type: Literal["register"]
    agent_id: Name
    agent_type: Name = "worker"
    capabilities: Annotated[list[Name], Field(max_length=1000)] = []
    slots: Annotated[int, Field(ge=1, le=10_000)] = 1
    pool: Name | None = None
    """Left out: the one that it is in already, or the default."""
    prefetch: Annotated[int, Field(ge=0, le=1000)] = 0
    """Work beyond its slots that it may be handed, to begin once a slot is free."""
    metadata: Annotated[dict[str, Any], AfterValidator(_small)] = {}
    """At most 64 KiB as JSON: it is shown with every list of the fleet."""
    protocol: Literal[1] = PROTOCOL_VERSION
    batch: bool = False
    token: str | None = None
    resume: Annotated[list[MessageId], Field(max_length=100_000)] = []


class Heartbeat(Frame):
    """The agent is alive."""

    type: Literal["agent_heartbeat"]
    agent_id: Name | None = None
    load: Share | None = None


class TaskAccepted(Frame):
    """The agent has taken the work."""

    type: Literal["task_accepted"]
    message_id: MessageId


class TaskProgress(Frame):
    """How far the work is."""

    type: Literal["task_progress"]
    message_id: MessageId
    progress: Share | None = None
    note: Annotated[str, Field(max_length=10_000)] | None = None
    usage: Usage | None = None


class TaskResult(Frame):
    """The work has ended: with `result`, or with `error`."""

    type: Literal["task_result"]
    message_id: MessageId
    task_id: Name | None = None
    result: Any = None
    error: ErrorBody | None = None
    confidence: Share | None = None
    usage: Usage | None = None


class ConsensusVote(Frame):
    """A vote on an open proposal."""

    type: Literal["consensus_vote"]
    decision_id: MessageId
    agent_id: Name | None = None
    vote: Any = None
    confidence: Share | None = None
    abstain: bool = False


class SubmitTask(Frame):
    """A sub-task, submitted from inside work."""

    type: Literal["submit_task"]
    request_id: MessageId
    task: dict[str, Any]
    wait_for: bool = False
    parent_message_id: MessageId | None = None


class Unregister(Frame):
    """The agent leaves; its work is given to others."""

    type: Literal["unregister"]
    agent_id: Name | None = None


FromAgent = Annotated[
    Register | Heartbeat | TaskAccepted | TaskProgress | TaskResult | ConsensusVote | SubmitTask | Unregister,
    Field(discriminator="type"),
]


class Registered(Frame):
    """Welcome."""

    type: Literal["registered"]
    engine_id: str
    agent_id: str
    heartbeat_interval: float
    """Seconds."""
    resumed: list[str]
    dropped: list[str]
    """Work that is no longer this agent's: stop it."""


class VoteBody(Frame):
    """What a vote counts."""

    options: list[Any] | None = None
    """The answers that count; any other is an abstention."""
    vote_on: str | None = None
    """The part of the result that is voted on, as a JSON pointer."""


class Allowance(Frame):
    """What is left for this attempt of the budgets that it is charged to."""

    cost_usd: float | None = None
    tokens: int | None = None


class WorkBody(Frame):
    """The task as the agent sees it."""

    type: str
    name: str | None = None
    priority: int
    data: Any
    required_capabilities: list[str]
    role: str | None = None
    result_schema: dict[str, Any] | bool | None = None
    """JSON Schema that the result has to fit."""
    vote: VoteBody | None = None
    """There where the result is a ballot."""
    budget: Allowance | None = None


class ExecuteTask(Frame):
    """Do this."""

    task_id: str
    attempt: int
    deadline: str
    """ISO 8601, UTC: when the attempt is taken away."""
    task: WorkBody
    inputs: dict[str, Any]
    """Results of the tasks that it depends on, by the name that the file used, or by id."""
    traceparent: str | None = None
    """The span that the agent's own are children of, as W3C Trace Context writes it; left out where the
    task is part of no trace."""


class CancelTask(Frame):
    """Stop this, and send nothing more for it."""

    task_id: str
    message_id: str
    reason: str


class ConsensusRequest(Frame):
    """Please vote."""

    decision_id: str
    topic: str
    question: Any
    options: list[Any] | None = None
    deadline: str | None = None


class SubtaskNews(Frame):
    """What became of a sub-task."""

    request_id: str
    task_id: str
    status: str
    result: Any = None


class Drain(Frame):
    """Finish what you hold; no more will come."""


class Message(Frame):
    """Anything that is addressed to one agent; `messageType` says what `data` is."""

    type: Literal["agent_message"]
    message_id: str
    agent_id: str


class ExecuteTaskMessage(Message):
    """Do this; `messageId` is the attempt."""

    message_type: Literal["execute_task"]
    data: ExecuteTask


class CancelTaskMessage(Message):
    """Stop this."""

    message_type: Literal["cancel_task"]
    data: CancelTask


class ConsensusRequestMessage(Message):
    """Please vote."""

    message_type: Literal["consensus_request"]
    data: ConsensusRequest


class SubtaskMessage(Message):
    """News of a sub-task."""

    message_type: Literal["subtask_submitted", "subtask_finished"]
    data: SubtaskNews


class DrainMessage(Message):
    """No more will come."""

    message_type: Literal["drain"]
    data: Drain


AgentMessage = Annotated[
    ExecuteTaskMessage | CancelTaskMessage | ConsensusRequestMessage | SubtaskMessage | DrainMessage,
    Field(discriminator="message_type"),
]


class Ack(Frame):
    """The result is durable: the agent may forget it."""

    type: Literal["ack"]
    message_id: str


class ErrorFrame(Frame):
    """What was wrong, in a sentence."""

    type: Literal["error"]
    code: str
    message: str
    message_id: str | None = None
    request_id: str | None = None


FromEngine = Annotated[Registered | AgentMessage | Ack | ErrorFrame, Field(discriminator="type")]

_FROM_AGENT: TypeAdapter[Any] = TypeAdapter(FromAgent)
_FROM_ENGINE: TypeAdapter[Any] = TypeAdapter(FromEngine)

KINDS = (
    "register",
    "agent_heartbeat",
    "task_accepted",
    "task_progress",
    "task_result",
    "consensus_vote",
    "submit_task",
    "unregister",
)


def read_frame(frame: Any) -> Any:
    """Check a decoded frame from an agent. Raises InvalidMessage that names the field."""
    if not isinstance(frame, dict):
        raise InvalidMessage(f"a frame is a JSON object, not {_kind(frame)}")
    kind = frame.get("type")
    if not isinstance(kind, str):
        raise InvalidMessage('the frame has no string "type"', field="type")
    if kind not in KINDS:
        raise InvalidMessage(f"there is no frame of type {kind[:50]!r}", field="type")
    try:
        return _FROM_AGENT.validate_python(frame)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or kind
        raise InvalidMessage(f"{kind}: {field} {explain(first, hide=True)}", field=field) from None


def dumps(value: Any) -> str:
    """JSON text for the database."""
    return orjson.dumps(value).decode()


def json_schema() -> dict[str, Any]:
    """The protocol as JSON Schema (2020-12): the frames of both directions."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"The agentorch agent protocol, version {PROTOCOL_VERSION}",
        "$defs": {},
    }
    for name, adapter in (("fromAgent", _FROM_AGENT), ("fromEngine", _FROM_ENGINE)):
        one = adapter.json_schema(by_alias=True, ref_template="#/$defs/{model}")
        schema["$defs"] |= one.pop("$defs", {})
        schema["$defs"][name] = one
    schema["oneOf"] = [{"$ref": "#/$defs/fromAgent"}, {"$ref": "#/$defs/fromEngine"}]
    return schema


def _kind(value: Any) -> str:
    match value:
        case list():
            return "an array"
        case str():
            return "a string"
        case None:
            return "null"
        case bool():
            return "a boolean"
        case _:
            return "a number"
