"""Every setting: its section, type, range, default and meaning. `config` fills them in.

The sections below are the one list of settings: their types check the files, their
docstrings and defaults write `config.example.toml`, and the environment names follow from
them (`AGENTORCH_GATEWAY_PORT` is `gateway.port`). Durations are seconds, or texts such as
"5m". Whoever needs one more setting adds it here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo

from agentorch_cli.core.durations import DURATION_SCHEMA, parse_duration
from agentorch_cli.core.hints import did_you_mean
from agentorch_cli.core.model import DEFAULT_POOL, MAX_NAME, NAME_PATTERN
from agentorch_cli.errors import InvalidConfig

APP: Final = "agentorch"
PREFIX: Final = "AGENTORCH_"
USER_FILE: Final = "config.toml"
HIDDEN: Final = "***"
DEFAULT: Final = "default"
"""The origin of what nobody said."""


def _longer_than_zero(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than 0 seconds")
    return seconds


def _database_url(url: str) -> str:
    if url and urlsplit(url).scheme not in ("postgresql", "postgres"):
        raise ValueError("must begin with postgresql://")
    return url


def _websocket_url(url: str) -> str:
    if url and urlsplit(url).scheme not in ("ws", "wss"):
        raise ValueError("must begin with ws:// or wss://")
    return url


def _http_url(url: str) -> str:
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise ValueError("must begin with http:// or https://")
    return url


def _server(server: str) -> str:
    """The address of a server, or the name of a profile."""
    if "://" not in server:
        if server and not is_profile_name(server):
            raise ValueError("must be an address such as wss://HOST:PORT, or the name of a profile")
        return server
    try:
        parts = urlsplit(_websocket_url(server))
        has_more = bool(parts.username or parts.password or parts.query or parts.fragment)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise ValueError("must be an address such as wss://HOST:PORT") from error
    if has_more:
        raise ValueError("may hold nothing but host, port and path: a token goes into a file or a variable")
    if not has_host:
        raise ValueError("names no host: wss://HOST:PORT")
    return server


def is_profile_name(name: str) -> bool:
    """Letters, digits, dots, dashes and underscores, at most 64."""
    return (
        len(name) <= 64
        and name[:1] not in ("-", ".")
        and name.replace("-", "").replace(".", "").replace("_", "").isalnum()
    )


def _names(names: str) -> str:
    """Several names with commas."""
    return ",".join(name.strip() for name in names.split(",") if name.strip())


def _joined(names: object) -> object:
    """A list of names is as good as a text with commas."""
    if isinstance(names, list) and all(isinstance(name, str) and "," not in name for name in names):
        return ",".join(names)
    return names


Seconds = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(DURATION_SCHEMA)]
Span = Annotated[
    float,
    BeforeValidator(parse_duration),
    AfterValidator(_longer_than_zero),
    WithJsonSchema(DURATION_SCHEMA),
]
Share = Annotated[float, Field(ge=0, le=1)]
Names = Annotated[str, BeforeValidator(_joined), Field(max_length=10_000), AfterValidator(_names)]
"""Names with commas between them, or a list of names."""

PATHS: Final = frozenset({"data_dir", "ca", "gateway.tls_cert", "gateway.tls_key"})
"""Settings that name a file or a folder; a relative one in a file counts from the folder of that file."""

LOCAL: Final = "local"
"""In place of a server: none, whatever the layers below say."""


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DatabaseSettings(Section):
    """PostgreSQL: the embedded one, or any server of version 14 or newer."""

    url: Annotated[str, AfterValidator(_database_url)] = Field(default="", repr=False)
    """postgresql://USER:PASSWORD@HOST:PORT/NAME; empty = the embedded server. Also DATABASE_URL."""
    pool_size: Annotated[int, Field(ge=2, le=1000)] = 20
    """Most connections of one process."""
    connect_timeout: Span = 10.0
    """Longest wait for a connection."""
    command_timeout: Span = 30.0
    """Longest time of one statement."""
    lock_timeout: Span = 10.0
    """Longest wait of a statement for a lock."""
    idle_in_transaction_timeout: Span = 60.0
    """The server ends transactions that idle longer than this."""
    start_timeout: Span = 120.0
    """Longest wait for the embedded server to start; recovery after a crash takes a while."""


class EngineSettings(Section):
    """The loops that assign, watch and settle work."""

    pool: Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN)] = DEFAULT_POOL
    """The pool whose tasks this serve assigns; it carries agents of any pool."""
    max_concurrent_tasks: Annotated[int, Field(ge=0, le=10_000_000)] = 100
    """Most tasks that run at once; 0 = no limit."""
    task_timeout: Span = 300.0
    """Longest run of one attempt, where a task names no timeout."""
    response_timeout: Span = 30.0
    """An agent that has not accepted work by then loses it to another."""
    retries: Annotated[int, Field(ge=0, le=1000)] = 2
    """Further attempts after a failed or timed-out one, where a task names no retries."""
    backoff: Seconds = 1.0
    """Wait before the first retry, where a task names no backoff; doubles each time, with jitter."""
    max_backoff: Span = 300.0
    """Longest wait before a retry, where a task names no max_backoff."""
    aging_seconds: Span = 60.0
    """A waiting task gains one step of priority each time this passes."""
    lease_seconds: Span = 10.0
    """What only one node does is another's this long after a node died."""
    poll_interval: Span = 5.0
    """The safety net: how often the tables are looked at although no notification came."""
    drain_timeout: Seconds = 30.0
    """How long a stopping engine waits for running work before it gives it back."""
    deadlock_sweep_interval: Span = 30.0
    """How often everything that waits is searched for deadlocks."""
    deadlock_wait: Span = 1.0
    """A task that waits while it holds a slot is checked after this."""
    max_subtask_depth: Annotated[int, Field(ge=1, le=10_000)] = 32
    """How deep sub-tasks may submit sub-tasks."""
    max_subtasks: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Most sub-tasks of one task."""


class DeadlockSettings(Section):
    """What is done about work that waits for itself."""

    resolve: bool = True
    """Whether deadlocks are resolved; else they are only reported."""
    parking: Literal["at_once", "on_deadlock", "never"] = "at_once"
    """When work that waits for its sub-tasks gives its slot back."""
    lending: bool = True
    """Agents whose metadata has `lend = N` may be given N more than they have slots."""
    requeue: bool = True
    """As the last step, the cheapest victims of a hold-and-wait are stopped and tried again later."""
    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 5
    """A task that deadlocks cost its work more often than this fails."""
    circular_dependency: Literal["fail", "report"] = "fail"
    """Tasks that depend on each other in a circle fail together, or are only reported."""
    missing_dependency_after: Span = 3600.0
    """A dependency that has not come by then counts as failed."""


class MatchingSettings(Section):
    """Which of the eligible agents gets the work."""

    performance_weight: Share = 0.7
    """Weight of measured performance in the score."""
    load_weight: Share = 0.3
    """Weight of free capacity in the score."""
    half_life: Span = 604800.0
    """After this, what is known of an agent counts half."""
    exploration: Share = 0.02
    """Share of the choices that go to whoever is measured least instead of best; 0 = none."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """What the draws of exploration begin with: the same history and seed give the same choices."""


class ConsensusSettings(Section):
    """Votes, where a task names no options of its own."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.66
    """Share of the electorate that has to agree."""
    panel: Annotated[int, Field(ge=1, le=100)] = 5
    """Voters that are asked."""
    cap: Annotated[int, Field(ge=1, le=100)] = 7
    """Most voters that adaptive and weighted votes ask."""
    confidence: Annotated[float, Field(gt=0.5, le=1)] = 0.95
    """Where adaptive and weighted votes stop."""


class BalancingSettings(Section):
    """Moving work that has not started from busy agents to idle ones."""

    enabled: bool = True
    """Whether work is moved, or handed to agents beyond their slots, at all."""
    interval: Span = 60.0
    """How often loads are compared."""
    high: Annotated[float, Field(ge=1, le=100)] = 1.5
    """Agents above this multiple of the mean load give work."""
    low: Share = 0.5
    """Agents below this multiple of the mean load take it."""
    prefetch: Annotated[int, Field(ge=0, le=1000)] = 2
    """Attempts beyond its slots that an agent of short tasks is handed at most; it says how many it holds."""


class BreakerSettings(Section):
    """Agents that keep failing get nothing for a while."""

    enabled: bool = True
    """Whether agents are excluded at all."""
    failures: Annotated[int, Field(ge=1, le=100_000)] = 10
    """So many failures, time-outs and losses in a row exclude an agent."""
    tasks: Annotated[int, Field(ge=1, le=100)] = 3
    """They have to be of so many different tasks: one poisoned task excludes nobody."""
    backoff: Span = 5.0
    """How long the first exclusion lasts; doubles with each that follows without a success."""
    max_backoff: Span = 300.0
    """Longest exclusion."""


class StragglersSettings(Section):
    """A second agent for work that lasts far longer than other work of its kind; the first result counts."""

    enabled: bool = False
    """Whether such work is given a backup: it may then be done twice."""
    factor: Annotated[float, Field(ge=1, le=1000)] = 3.0
    """Work that lasts longer than this multiple of the 95th percentile of its skill and task type."""
    min_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Completed attempts of that kind that must be known, old ones counting for less."""
    min_seconds: Span = 1.0
    """Work that has not lasted for so long is never given a backup."""


class GatewaySettings(Section):
    """The WebSocket and HTTP port of `serve`."""

    host: Annotated[str, Field(min_length=1, max_length=255)] = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 3001
    """Port to listen on; 0 = any free one."""
    max_message_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 1_048_576
    """Largest frame in bytes; a larger one closes the connection."""
    heartbeat_interval: Span = 10.0
    """How often agents say that they live; three times this in silence closes the connection."""
    register_timeout: Span = 10.0
    """A connection that has not registered by then is closed."""
    insecure: bool = False
    """Listen beyond loopback without tokens and TLS, on a network that is yours alone."""
    require_tokens: bool = False
    """Ask for a token on loopback and with insecure too; elsewhere it is always asked for."""
    tls_cert: Path | None = None
    """The certificate (with its chain) of wss://, as a PEM file."""
    tls_key: Path | None = None
    """The certificate's private key, as a PEM file."""
    allowed_hosts: Names = ""
    """Names by which this server may be called besides localhost, its own name and addresses; with commas."""
    allow_remote_exec: bool = False
    """Whether agents that run a command on this machine may be registered through this port."""
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Most connections at once; further ones are told to come back."""
    max_frames_per_second: Annotated[int, Field(ge=1, le=10_000_000)] = 5_000
    """Frames of a connection besides three for each piece of work; who sends more is read more slowly."""
    max_control_bytes: Annotated[int, Field(ge=65_536, le=1 << 30)] = 134_217_728
    """Largest request on the control endpoint in bytes, of who may submit; of others it is 4 MiB at most."""
    max_requests: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Requests of one control connection that are worked on at once; the next ones wait."""
    max_subscriptions: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Subscriptions of one control connection."""
    send_timeout: Span = 10.0
    """A control connection that has not taken a frame by then is cut off."""
    hub_url: Annotated[str, AfterValidator(_websocket_url)] = Field(default="", repr=False)
    """A WebSocket hub to join as a client as well; empty = none. Also WEBSOCKET_URL."""


class ExecSettings(Section):
    """The commands that serve runs for agents with `exec`."""

    env: Names = ""
    """Variables that they see besides PATH, HOME, LANG and TMPDIR; with commas."""
    max_output_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 1_048_576
    """Most that one may write to stdout, and to stderr; it is killed when it writes more."""


class UpSettings(Section):
    """The fleet that `agentorch up` runs."""

    backoff: Span = 0.5
    """Wait before an agent that ended is started again; doubles each time that it ends soon."""
    max_backoff: Span = 30.0
    """Longest wait before a start."""
    steady: Span = 10.0
    """An agent that ran for so long did not end soon: the waits begin anew."""
    stop_timeout: Seconds = 30.0
    """How long an agent that is stopped may finish what it does, before it gives it back."""
    log_bytes: Annotated[int, Field(ge=1024, le=1 << 40)] = 5_000_000
    """Size at which the log of an agent is put aside and a new one begun."""
    log_files: Annotated[int, Field(ge=0, le=100)] = 2
    """So many logs that were put aside are kept of each agent."""


class RetentionSettings(Section):
    """What serve deletes by itself because it is old."""

    tasks: Seconds = 0.0
    """Tasks that ended longer ago go, with their attempts, votes and events; 0 = they stay for ever."""
    keep_last: Annotated[int, Field(ge=0, le=1_000_000_000)] = 1000
    """The newest tasks that have ended stay, however old they are."""
    interval: Span = 3600.0
    """How often what is old is looked for."""


class LoggingSettings(Section):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least urgent messages that are written."""
    format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""


class TracingSettings(Section):
    """Spans for OpenTelemetry; they need the extra `otel`."""

    endpoint: Annotated[str, AfterValidator(_http_url)] = ""
    """Base address of an OTLP/HTTP collector, such as http://127.0.0.1:4318; empty = no traces."""


class Profile(Section):
    """`[profiles.NAME]` of the user's file: a server, and how to come in there."""

    url: Annotated[str, AfterValidator(_server), AfterValidator(_websocket_url), Field(min_length=1)]
    """wss://HOST:PORT."""
    ca: str = ""
    """A PEM file with the authority that signed the server's certificate; empty = the system's."""
    token_file: str = ""
    """A file that holds the token; only you should be able to read it."""
    token_env: str = ""
    """The variable that holds the token."""
    insecure: bool = False
    """Send the token although the connection is not encrypted."""


class Settings(Section):
    """All settings of agentorch."""

    server: Annotated[str, AfterValidator(_server)] = ""
    """Work against this server, wss://HOST:PORT or the name of a profile; empty or "local" = a database."""
    ca: Path | None = None
    """The authority that signed the server's certificate, as a PEM file; empty = those of the system."""

    data_dir: Path = Field(default_factory=lambda: default_data_dir())
    """Where the embedded PostgreSQL and its log live; empty = the platform's folder for user data."""
    database: DatabaseSettings = DatabaseSettings()
    engine: EngineSettings = EngineSettings()
    deadlocks: DeadlockSettings = DeadlockSettings()
    matching: MatchingSettings = MatchingSettings()
    consensus: ConsensusSettings = ConsensusSettings()
    balancing: BalancingSettings = BalancingSettings()
    stragglers: StragglersSettings = StragglersSettings()
    breaker: BreakerSettings = BreakerSettings()
    gateway: GatewaySettings = GatewaySettings()
    exec: ExecSettings = ExecSettings()
    up: UpSettings = UpSettings()
    retention: RetentionSettings = RetentionSettings()
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings = TracingSettings()

    _origins: dict[str, list[tuple[str, Any]]] = PrivateAttr(default_factory=dict)
    """Of each setting that is not only the default: who says it and what, the one that counts at the end."""
    _profiles: dict[str, Profile] = PrivateAttr(default_factory=dict)

    def with_origins(self, origins: Mapping[str, list[tuple[str, Any]]]) -> Settings:
        """The same settings, knowing where their values came from."""
        self._origins.update(origins)
        return self

    def with_profiles(self, profiles: Mapping[str, Profile]) -> Settings:
        """The same settings, knowing the user's profiles."""
        self._profiles.update(profiles)
        return self

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """The user's profiles by name."""
        return self._profiles

    @property
    def is_remote(self) -> bool:
        """Whether the commands work against a server."""
        return self.server not in ("", LOCAL)

    def origin(self, name: str) -> str:
        """Where the value of a setting came from: `default`, a file with its line, a variable, a flag."""
        find_setting(name)
        said = self._origins.get(name)
        return said[-1][0] if said else DEFAULT

    def origins(self, name: str) -> list[tuple[str, Any]]:
        """Everybody who says something about a setting, with what they say, fit to be shown.

        The first one counts; the default is last.
        """
        info = find_setting(name)
        said = [(origin, _plain(name, value)) for origin, value in reversed(self._origins.get(name, []))]
        return [*said, (DEFAULT, _plain(name, info.get_default(call_default_factory=True)))]

    def shown(self) -> list[tuple[str, Any, str]]:
        """Name, value and origin of every setting, fit to be shown: secrets are hidden, paths are text."""
        return [(name, _plain(name, _value(self, name)), self.origin(name)) for name in setting_names()]


def default_data_dir() -> Path:
    """The platform's folder for user data, for root as for everybody."""
    import platformdirs

    return Path(platformdirs.user_data_dir(APP, appauthor=False))


def user_config_path() -> Path:
    """The user's own configuration file, whether or not it exists."""
    import platformdirs

    return Path(platformdirs.user_config_dir(APP, appauthor=False)) / USER_FILE


def setting_names() -> list[str]:
    """Every setting as `section.name`, in the order of this page."""
    names = []
    for name, info in Settings.model_fields.items():
        section = section_of(info)
        names += [f"{name}.{inner}" for inner in section.model_fields] if section else [name]
    return names


def variable(name: str) -> str:
    """The environment variable of a setting: `gateway.port` -> `AGENTORCH_GATEWAY_PORT`."""
    return PREFIX + name.upper().replace(".", "_")


def is_secret(name: str) -> bool:
    """Whether the value may hold a password."""
    return name.endswith("url")


def redact_url(url: str) -> str:
    """The URL without its password, wherever that stands; of a text that is no URL nothing is shown."""
    try:
        parts = urlsplit(url)
        has_password = parts.password is not None
    except ValueError:
        return HIDDEN
    if has_password:
        user, host = quote(parts.username or "", safe="%"), parts.netloc.rpartition("@")[2]
        url = url.replace(parts.netloc, f"{user}:{HIDDEN}@{host}", 1)
    if _names_secret(parts.query):
        pairs = [
            (key, HIDDEN if _names_secret(key) else value) for key, value in parse_qsl(parts.query, True)
        ]
        url = url.replace(parts.query, urlencode(pairs, safe="*/:"), 1)
    return url


def _names_secret(key: str) -> bool:
    return any(secret in key.lower() for secret in ("password", "token", "secret", "key"))


def section_of(info: FieldInfo) -> type[Section] | None:
    annotation = info.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def find_setting(name: str) -> FieldInfo:
    """The field of a setting. Raises InvalidConfig for a name that no setting has."""
    head, _, rest = name.partition(".")
    info = Settings.model_fields.get(head)
    section = section_of(info) if info else None
    found = section.model_fields.get(rest) if section else info if info and not rest else None
    if found is None:
        raise InvalidConfig(f'there is no setting "{name}"{did_you_mean(name, setting_names())}')
    return found


def _value(settings: Settings, name: str) -> Any:
    value: Any = settings
    for step in name.split("."):
        value = getattr(value, step)
    return value


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Path) or (value is None and name in PATHS):
        return str(value or "")
    return redact_url(value) if is_secret(name) and value else value
