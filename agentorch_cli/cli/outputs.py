"""What each command prints: the kind of document, its JSON Schema, and the columns of its CSV.

`OUTPUTS` has a line for every command. The schemas are made from the models, lie in `output_schemas`
for editors and other languages, and are compared with the models by a test; `make schemas` writes them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from agentorch_cli import views
from agentorch_cli.cli.forms import VERSION
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.errors import NotFound


class CheckView(views.View):
    """One thing that `doctor` looked at."""

    name: str
    ok: bool | None
    """Null: worth knowing, and neither right nor wrong."""
    text: str
    fix: str | None = None


class SettingView(views.View):
    """A setting, its value, and where the value comes from."""

    name: str
    value: Any
    origin: str


class FileView(views.View):
    """A file that was written."""

    path: str


class LogLineView(views.View):
    """A line that a process of the fleet has written."""

    name: str
    at: str
    line: str


class ProcessView(views.View):
    """A process that `up` keeps running."""

    name: str
    agent: str | None
    """Which agent of the file it is one of; null for the engine."""
    state: str
    pid: int | None
    starts: int
    since: str
    """When the state began."""
    next_start: str | None
    exit: str | None
    """How its last life ended."""
    said: str
    """What it said at last."""
    log: str


class ProcessEventView(views.View):
    """A process of `up` in the foreground has come into another state."""

    event: str
    name: str
    state: str
    pid: int | None


class EndView(views.View):
    """A process that was stopped."""

    name: str
    how: str


class DifferenceView(views.View):
    """What `up` changed about a fleet that runs."""

    started: list[str]
    changed: list[str]
    """Stopped, and started anew."""
    stopped: list[EndView]
    unchanged: int


class ProfileView(views.View):
    """A server by name."""

    name: str
    active: bool | None = None
    url: str | None = None
    ca: str | None = None
    token: str | None = None
    """Where it comes from; never the token itself."""
    token_file: str | None = None
    token_env: str | None = None
    insecure: bool | None = None
    path: str | None = None
    """The file in which it is kept."""


class PlannedTaskView(views.View):
    """A task as it would be submitted."""

    task_id: str
    name: str | None
    type: str
    layer: int
    depends_on: list[str]
    required_capabilities: list[str]
    agents: list[str] = Field(default_factory=list)
    """Registered agents that could take it; only where a database could be asked, likewise `never`."""
    never: str | None = None
    """Why nobody can do it."""


class ReplayView(views.View):
    """What a rule made of recorded votes."""

    rule: str
    tasks: int
    votes_per_task: float
    accuracy: float | None
    accuracy_decided: float | None
    calibration_error: float | None
    calibrated_on: int
    decided: int
    decided_by: dict[str, int]
    ballots: int
    seed: int
    verified: float
    seconds: float


class ReadyView(views.View):
    """`serve` takes agents."""

    event: str
    url: str
    ui: str
    """The web page."""


class UrlView(views.View):
    """Where the web page is."""

    url: str


class AddressView(views.View):
    """Where the database is."""

    url: str
    """With the password hidden, unless it was asked for."""
    is_embedded: bool
    is_running: bool | None
    """Whether somebody answers there; null: a PostgreSQL of your own is not asked."""


class StopView(views.View):
    """What stopping the embedded PostgreSQL found."""

    was_running: bool


class ErrorDetails(views.View):
    """An error, on stderr."""

    code: str
    message: str
    exit_code: int
    where: str | None = None
    why: str
    fix: str
    """A command that mends it, or says more."""
    hint: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class ErrorView(views.View):
    """What went wrong, on stderr."""

    error: ErrorDetails


class Output(NamedTuple):
    """What a command prints."""

    kind: type[BaseModel]
    is_list: bool = False


def _many(kind: type[BaseModel]) -> Output:
    return Output(kind, is_list=True)


AGENTS, TASKS, EVENTS = _many(views.AgentView), _many(views.TaskView), _many(views.EventView)
CHANGE, DECISION = Output(views.ChangeReply), Output(views.DecisionView)

OUTPUTS: dict[str, tuple[Output, ...]] = {
    "demo": (TASKS,),
    "init": (_many(FileView),),
    "init-db": (Output(views.SchemaView),),
    "serve": (Output(ReadyView),),
    "up": (_many(ProcessView), Output(DifferenceView), Output(ProcessEventView)),
    "down": (_many(EndView),),
    "logs": (_many(LogLineView),),
    "help": (),
    "explain": (),
    "schema task": (),
    "schema agents": (),
    "schema config": (),
    "schema output": (),
    "completion bash": (),
    "completion zsh": (),
    "completion fish": (),
    "agent register": (AGENTS,),
    "agent list": (AGENTS,),
    "agent show": (Output(views.AgentView),),
    "agent remove": (CHANGE,),
    "agent pause": (CHANGE,),
    "agent drain": (CHANGE,),
    "agent resume": (CHANGE,),
    "agent run": (),
    "agent attach": (),
    "task submit": (Output(views.SubmitReply), TASKS, _many(PlannedTaskView)),
    "task validate": (_many(PlannedTaskView),),
    "task list": (TASKS,),
    "task show": (Output(views.TaskView),),
    "task wait": (TASKS,),
    "task cancel": (CHANGE, _many(views.TaskRef)),
    "task retry": (CHANGE, _many(views.TaskRef)),
    "task why": (Output(views.WhyView),),
    "task graph": (Output(views.GraphView),),
    "task timeline": (Output(views.TimelineView),),
    "task depend": (Output(views.TaskView),),
    "schedule add": (Output(views.ScheduleView),),
    "schedule list": (_many(views.ScheduleView),),
    "schedule show": (Output(views.ScheduleView),),
    "schedule pause": (CHANGE,),
    "schedule resume": (CHANGE,),
    "schedule remove": (CHANGE,),
    "schedule run": (Output(views.SubmitReply),),
    "node list": (_many(views.NodeView),),
    "status": (Output(views.StatusView),),
    "top": (),
    "ui": (Output(UrlView),),
    "budget set": (Output(views.BudgetView),),
    "budget list": (_many(views.BudgetView),),
    "budget show": (Output(views.BudgetView),),
    "budget remove": (CHANGE,),
    "limit set": (Output(views.LimitView),),
    "limit list": (_many(views.LimitView),),
    "limit remove": (CHANGE,),
    "outcome": (Output(views.OutcomeView), CHANGE),
    "deadlock list": (_many(views.DeadlockView),),
    "deadlock show": (Output(views.DeadlockView),),
    "deadlock check": (Output(views.DeadlockCheck),),
    "deadlock resolve": (_many(views.DeadlockStep),),
    "consensus list": (_many(views.DecisionView),),
    "consensus show": (DECISION,),
    "consensus open": (DECISION,),
    "consensus vote": (Output(views.VoteView),),
    "consensus close": (DECISION,),
    "consensus reliability": (_many(views.ReliabilityView),),
    "consensus replay": (Output(ReplayView), _many(ReplayView)),
    "event tail": (EVENTS,),
    "event list": (EVENTS,),
    "config init": (Output(FileView),),
    "config show": (_many(SettingView),),
    "config get": (Output(SettingView),),
    "config set": (),
    "config unset": (),
    "db status": (Output(views.DatabaseView),),
    "db upgrade": (Output(views.SchemaView),),
    "db backup": (Output(views.BackupView),),
    "db restore": (Output(views.RestoreView),),
    "db url": (Output(AddressView),),
    "db stop": (Output(StopView),),
    "prune": (Output(views.PruneView),),
    "doctor": (_many(CheckView),),
    "profile add": (Output(ProfileView),),
    "profile use": (Output(ProfileView),),
    "profile list": (_many(ProfileView),),
    "profile remove": (Output(ProfileView),),
    "token create": (Output(views.NewTokenView),),
    "token list": (_many(views.TokenView),),
    "token revoke": (CHANGE,),
    "chaos": (),
    "protocol schema": (),
}
"""By command: what it may print. Nothing: no document of a fixed kind (a proof, a JSON Schema, talk)."""


def row_kind(command: str) -> type[BaseModel] | None:
    """What a list of this command holds: an empty one has columns too."""
    return next((one.kind for one in OUTPUTS.get(command, ()) if one.is_list), None)


def document_name(kind: type[BaseModel]) -> str:
    """`SubmitReply` -> `submit-reply`, `TaskView` -> `task`."""
    words = re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__.removesuffix("View"))
    return words.lower()


@cache
def kinds() -> dict[str, type[BaseModel]]:
    """Every kind of document by its name."""
    found: dict[str, type[BaseModel]] = {document_name(ErrorView): ErrorView}
    for outputs in OUTPUTS.values():
        found |= {document_name(one.kind): one.kind for one in outputs}
    return {name: found[name] for name in sorted(found)}


def printed_by(kind: type[BaseModel]) -> list[str]:
    """The commands that print such a document, or a list of them; an error is any command's."""
    return [command for command, outputs in OUTPUTS.items() if any(one.kind is kind for one in outputs)]


def make_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a kind of document, from its model."""
    schema = kinds()[name].model_json_schema(mode="serialization", ref_template="#/$defs/{model}")
    properties = {VERSION: {"const": views.SCHEMA_VERSION}, **schema.pop("properties")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:agentorch:output:{name}:{views.SCHEMA_VERSION}",
        **schema,
        "properties": properties,
        "required": [VERSION, *schema.get("required", ())],
    }


def read_schema(name: str) -> str:
    """The JSON Schema that is shipped. Raises NotFound."""
    if name not in kinds():
        raise NotFound(
            f"there is no document {name!r}{did_you_mean(name, kinds())}", hint=f"one of {', '.join(kinds())}"
        )
    return resources.files("agentorch_cli").joinpath(f"output_schemas/{name}.json").read_text("utf-8")


def shape(schema: dict[str, Any]) -> dict[str, str]:
    """Field by field of a schema and of the things inside it, what it holds: without the words about it."""
    found = {}
    for model, part in {"": schema, **schema.get("$defs", {})}.items():
        for field, kind in part.get("properties", {}).items():
            found[f"{model}.{field}".lstrip(".")] = _bare(kind)
    return found


def _bare(kind: Any) -> str:
    """What a value may be, in a word or two."""
    if "$ref" in kind:
        return str(kind["$ref"]).rpartition("/")[2]
    if "anyOf" in kind:
        return " or ".join(sorted(map(_bare, kind["anyOf"])))
    if "const" in kind:
        return str(kind["const"])
    if "enum" in kind:
        return " or ".join(map(str, kind["enum"]))
    if kind.get("type") == "array":
        return f"list of {_bare(kind.get('items', {}))}"
    return str(kind.get("format") or kind.get("type") or "anything")
