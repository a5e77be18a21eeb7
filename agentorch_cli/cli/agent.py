"""`agentorch agent`: who belongs to the fleet, and the program that is one of them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli import lists
from agentorch_cli.cli.consent import Yes, ask_first, word_for
from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.options import LogFormat, LogLevel, TellEverybody, json_or_text
from agentorch_cli.cli.session import Session
from agentorch_cli.core.hints import shortened
from agentorch_cli.errors import OrchestratorError, UsageError, fixed_by

if TYPE_CHECKING:
    from agentorch_cli.agents import Agent
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.client.remote import Target
    from agentorch_cli.core.model import AgentSpec
    from agentorch_cli.views import AgentView

app = noun("""$ agentorch agent register alice --type writer -c summarise -c translate

Register agents, list them, run one.""")

LOOK_SECONDS = 5.0
"""For finding the engine by its database, before the configured address is good enough."""

AgentType = Annotated[
    str | None, typer.Option("--type", "-t", metavar="TYPE", help='What it is; "worker" if not said.')
]
Capabilities = Annotated[
    list[str] | None,
    typer.Option("-c", "--capability", metavar="CAP", help="What it can do; may be repeated."),
]
Slots = Annotated[
    int | None, typer.Option("--slots", metavar="N", help="How many tasks it takes at once; 1 if not said.")
]
InPool = Annotated[
    str | None,
    typer.Option("--pool", metavar="NAME", help="Only tasks of this pool; where it is by now if not said."),
]
Prefetch = Annotated[
    int | None,
    typer.Option(
        "--prefetch", metavar="N", help="Short tasks beyond its slots that it holds at most; 0 if not said."
    ),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Kept with it; may be repeated."),
]
EngineUrl = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="Engine to connect to, in place of the chosen server, or serve here."
    ),
]
AgentId = Annotated[str, typer.Argument(metavar="ID", help="Id of the agent.", show_default=False)]
AgentIds = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids of agents.", show_default=False)]
Reason = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; shown wherever it matters.")
]


@verb(app, "register")
def register(
    ctx: typer.Context,
    agent_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Id of the agent.", show_default=False)
    ] = None,
    type: AgentType = None,
    capabilities: Capabilities = None,
    slots: Slots = None,
    pool: InPool = None,
    metadata: Metadata = None,
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="CMD", help="serve runs this for each task: JSON in, JSON out."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="FILE", help='Register all agents of a file, a directory, or stdin ("-").'
        ),
    ] = None,
) -> None:
    """Register an agent, or all agents of a file. An agent that is known is changed.

    $ agentorch agent register alice --type writer -c summarise --slots 4
    $ agentorch agent register counter -c count --exec "python3 count.py"
    $ agentorch agent register --from agents.toml

    An agent with --exec is run by serve: the task is JSON on stdin, the result JSON on
    stdout, and another exit status than 0 is a failure. Others connect by themselves.
    """
    session = Session.of(ctx)
    if (agent_id is None) == (file is None):
        raise UsageError("give an ID, or --from with a file", fix=f"{ctx.command_path} --help")
    if file is not None and any((type, capabilities, slots, pool, metadata, command)):
        raise UsageError("--from takes everything from the file, and goes with no other option of an agent")
    if file is not None and _is_for_up(file):
        session.say("How many run, where and how often again is for: agentorch up")
    agents = (
        _from_file(file)
        if file is not None
        else [_spec(agent_id, type, capabilities, slots, pool, metadata, command)]
    )
    _show_agents(session, session.ask("agent.register", agents=agents))


@verb(app, "list")
def list_agents(
    ctx: typer.Context,
    status: lists.Status = None,
    capabilities: lists.Capabilities = None,
    label: lists.Labels = None,
    type: Annotated[str | None, typer.Option("--type", "-t", metavar="TYPE", help="Only this type.")] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", metavar="NAME", help="Only agents of this pool.")
    ] = None,
    since: lists.Since = None,
    until: lists.Until = None,
    sort: lists.Sort = None,
    limit: lists.Limit = 100_000,
    cursor: lists.Cursor = None,
) -> None:
    """List the agents of the fleet, by id.

    $ agentorch agent list --status online
    $ agentorch agent list -c summarise --sort -load --limit 5

    --label is about --metadata, --since and --until about when an agent was registered. It sorts by
    id, created, seen, status, type, load, score, completed or failed.
    """
    from agentorch_cli.core.model import AgentStatus

    session = Session.of(ctx)
    given = {
        "status": lists.states(status, list(AgentStatus), "status"),
        "capability": capabilities,
        "label": lists.labels(label),
        "type": type,
        "pool": pool,
        **lists.times(since, until),
        **lists.page_of(limit, sort, cursor),
    }
    agents = session.ask("agent.list", **{key: one for key, one in given.items() if one is not None})
    _show_agents(session, agents, lists.nothing(given, "agents", "agentorch agent register adds one"))
    lists.tell_more(session, agents, limit)


@verb(app, "show")
def show(ctx: typer.Context, agent_id: AgentId) -> None:
    """Show one agent: what it can do, what it does, how well.

    $ agentorch agent show alice
    """
    session = Session.of(ctx)
    agent = session.ask("agent.get", agent_id=agent_id)

    def draw(page: Page) -> None:
        from agentorch_cli.cli import portrait

        portrait.draw(page, agent)

    session.show(agent, draw, [agent.agent_id])


@verb(app, "remove")
def remove(
    ctx: typer.Context,
    agent_ids: AgentIds,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Even agents that hold work; it is given to others.")
    ] = False,
    is_sure: Yes = False,
) -> None:
    """Remove agents from the fleet.

    $ agentorch agent remove alice
    $ agentorch agent remove alice --force --yes

    --force asks where agents hold work.
    """
    from agentorch_cli.cli.task import show_change

    session = Session.of(ctx)
    if is_forced and not is_sure:
        wanted = set(agent_ids)
        held = {one.agent_id: len(one.working_on) for one in session.ask("agent.list")}
        tasks = sum(number for agent_id, number in held.items() if agent_id in wanted)
        if tasks:
            who = ", ".join(sorted(one for one in wanted if held.get(one)))
            ask_first(
                session,
                f"This removes {who}, and gives {tasks:,} running tasks to others.",
                yes=False,
                word=word_for(tasks),
            )
    reply = session.ask("agent.remove", agent_ids=list(dict.fromkeys(agent_ids)), force=is_forced)
    show_change(session, reply, "removed")


@verb(app, "pause")
def pause(
    ctx: typer.Context,
    agent_ids: AgentIds,
    reason: Reason = None,
    length: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help='The pause ends by itself after this: "10m".')
    ] = None,
) -> None:
    """Give agents nothing new; they keep what they hold.

    $ agentorch agent pause alice --for 10m --reason "new model"

    The pause holds through reconnects and restarts, until its time is over or somebody says
    agentorch agent resume. Why tasks wait for it: agentorch task why.
    """
    from agentorch_cli.cli.task import show_change

    session = Session.of(ctx)
    seconds = _seconds(length, "--for")
    reply = session.ask(
        "agent.pause", agent_ids=list(dict.fromkeys(agent_ids)), reason=reason, for_seconds=seconds
    )
    show_change(session, reply, "paused")


@verb(app, "drain")
def drain(
    ctx: typer.Context,
    agent_ids: AgentIds,
    reason: Reason = None,
    is_waiting: Annotated[
        bool, typer.Option("--wait", help="Return once they hold nothing any more.")
    ] = False,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help='Wait no longer than this: "10m".')
    ] = None,
) -> None:
    """Give agents nothing new and tell them to finish what they hold, before they are stopped.

    $ agentorch agent drain alice --wait --timeout 10m

    They stay draining, through reconnects and restarts, until agentorch agent resume. The exit
    code is 6 if they still hold work when --timeout is over.
    """
    from agentorch_cli.cli.task import show_change

    session = Session.of(ctx)
    seconds = _seconds(timeout, "--timeout")
    if seconds is not None and not is_waiting:
        raise UsageError("--timeout is for --wait", fix=f"{ctx.command_path} --help")
    reply = session.ask(
        "agent.drain",
        agent_ids=list(dict.fromkeys(agent_ids)),
        reason=reason,
        wait=is_waiting,
        timeout_seconds=seconds,
    )
    show_change(session, reply, "drained" if is_waiting else "draining")


@verb(app, "resume")
def resume(ctx: typer.Context, agent_ids: AgentIds, reason: Reason = None) -> None:
    """Give agents work again that are paused, draining, or excluded because they kept failing.

    $ agentorch agent resume alice
    """
    from agentorch_cli.cli.task import show_change

    session = Session.of(ctx)
    reply = session.ask("agent.resume", agent_ids=list(dict.fromkeys(agent_ids)), reason=reason)
    show_change(session, reply, "resumed")


@verb(app, "run")
def run(
    ctx: typer.Context,
    agent_id: AgentId,
    type: AgentType = None,
    capabilities: Capabilities = None,
    slots: Slots = None,
    pool: InPool = None,
    prefetch: Prefetch = None,
    metadata: Metadata = None,
    command: Annotated[
        str | None, typer.Option("--exec", metavar="CMD", help="Run this for each task: JSON in, JSON out.")
    ] = None,
    function: Annotated[
        str | None, typer.Option("--python", metavar="MODULE:FUNCTION", help="Call this for each task.")
    ] = None,
    url: EngineUrl = None,
    allowed: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME", help="A variable that --exec may see; may be repeated."),
    ] = None,
    is_insecure: TellEverybody = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Be an agent: connect to an engine, on this or another machine, and do its tasks.

    $ agentorch agent run counter-1 -c count --exec "python3 count.py"
    $ agentorch agent run alice -c summarise --python mywork:summarise --server wss://host:3001

    It finds the serve of this data directory, whatever its port is; --url names another. Ctrl-C
    finishes what runs, a second one gives it back at once. A token, where the engine
    wants one, comes from the profile, from AGENTORCH_TOKEN, or the file AGENTORCH_TOKEN_FILE.
    """
    session = Session.of(ctx)
    if (command is None) == (function is None):
        raise UsageError("give either --exec or --python", fix=f"{ctx.command_path} --help")
    spec = _spec(agent_id, type, capabilities, slots, pool, metadata, None)
    session.more_flags |= {"logging.level": log_level, "logging.format": log_format}

    from agentorch_cli import logs
    from agentorch_cli.agents.agent import PREFETCH, Agent
    from agentorch_cli.agents.runners import exec_handler, python_handler

    is_chosen = session.settings.origin("logging.level") != "default"
    logs.configure(
        session.settings.logging.level if is_chosen else "warning", session.settings.logging.format
    )

    handler = (
        python_handler(function)
        if function is not None
        else exec_handler(str(command), env_allow=allowed or ())
    )
    agent = Agent(
        spec.agent_id,
        type=spec.type,
        capabilities=spec.capabilities,
        slots=spec.slots,
        pool=spec.pool,
        metadata=spec.metadata,
        prefetch=PREFETCH if prefetch is None else prefetch,
    )
    number = session.run(_work(session, agent, handler, url, is_insecure), is_long=True)
    if number:
        raise typer.Exit(128 + number)


@verb(app, "attach")
def attach(
    ctx: typer.Context,
    agent_id: AgentId,
    capabilities: Capabilities = None,
    type: Annotated[
        str | None, typer.Option("--type", "-t", metavar="TYPE", help='What you are; "person" if not said.')
    ] = None,
    slots: Slots = None,
    pool: InPool = None,
    metadata: Metadata = None,
    url: EngineUrl = None,
    is_insecure: TellEverybody = False,
) -> None:
    """Be an agent yourself: work is shown as it comes, and you answer, vote or decline.

    $ agentorch agent attach alice -c approve -c human
    $ echo '{"verdict": "yes"}' | agentorch agent attach alice -c approve

    Without -c you have the capability human, which decides where a vote escalates. /help says
    what may be typed. Leaving gives back what is not answered. Not on a terminal, each
    line is an answer, and the end of the lines leaves.
    """
    session = Session.of(ctx)
    from agentorch_cli.agents.person import HUMAN

    spec = _spec(agent_id, type or "person", capabilities or [HUMAN], slots, pool, metadata, None)

    from agentorch_cli.agents.agent import Agent

    agent = Agent(
        spec.agent_id,
        type=spec.type,
        capabilities=spec.capabilities,
        slots=spec.slots,
        pool=spec.pool,
        metadata=spec.metadata,
    )
    code = session.run(_attend(session, agent, url, is_insecure))
    if code:
        raise typer.Exit(code)


async def _attend(session: Session, agent: Agent, url: str | None, is_insecure: bool) -> int:
    from agentorch_cli.cli.attach import attend
    from agentorch_cli.tls import context_for

    target = await _engine(session, url, is_insecure)
    tls = context_for(target.url, target.ca)
    return await attend(agent, target.url, target.token, tls=tls, as_json=session.format != "table")


async def _work(
    session: Session, agent: Agent, handler: Any, url: str | None, is_insecure: bool
) -> int | None:
    from agentorch_cli.agents.worker import run_worker, telling
    from agentorch_cli.tls import context_for

    target = await _engine(session, url, is_insecure)
    now_at = target.url

    async def find() -> str:
        nonlocal now_at
        with contextlib.suppress(OrchestratorError):  # a look is no reason for an agent to end
            now_at = await _running_engine(session) or now_at
        return now_at

    # Only on the embedded database: a fleet that asks a server, as it comes back, would take its connections.
    is_found = url is None and not session.settings.is_remote and not session.settings.database.url
    return await run_worker(
        agent,
        handler,
        url=target.url,
        token=target.token,
        on_connection=telling(agent.agent_id, lambda: now_at, session.say),
        tls=context_for(target.url, target.ca),
        find=find if is_found else None,
    )


async def _engine(session: Session, url: str | None, is_insecure: bool) -> Target:
    """The engine to connect to: that of --url, of the chosen server, or who works on the database here; the
    configured port is only where one is expected. Raises UsageError, NotAllowed."""
    from agentorch_cli.cli.nodes import agents_url
    from agentorch_cli.cli.target import engine_of

    if url is not None and not url.startswith(("ws://", "wss://")):
        raise UsageError(f"--url must begin with ws:// or wss://, not {shortened(url)!r}")
    found = url
    if found is None and not session.settings.is_remote:
        found = await _running_engine(session)
    target = engine_of(session.settings, found or agents_url(session.settings), is_named=url is not None)
    if not is_insecure:
        target.refuse_to_tell_everybody()
    return target


async def _running_engine(session: Session) -> str | None:
    """The engine that works on the database here, if that can be told soon: an agent needs no database."""
    import asyncio

    from agentorch_cli.cli.nodes import running_engine

    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await running_engine(session)
    except TimeoutError:
        return None


def _seconds(text: str | None, option: str) -> float | None:
    """A duration that is longer than nothing. Raises UsageError."""
    from agentorch_cli.core.durations import parse_duration

    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f'{option} "{text}" {error}') from error
    if not seconds:
        raise UsageError(f"{option} must be longer than 0 seconds")
    return seconds


def _is_for_up(name: str) -> bool:
    """Whether an agent of the file says what only `agentorch up` does."""
    from agentorch_cli.documents import load_document
    from agentorch_cli.messages import FOR_UP
    from agentorch_cli.taskfile import read_agent_tables

    if name == "-":  # it can be read once only
        return False
    try:
        tables = [table for _, table in read_agent_tables(load_document(Path(name)))]
    except OrchestratorError:  # told where the agents are read
        return False
    return any(key in table for table in tables for key in (*FOR_UP, "python"))


def _from_file(name: str) -> list[AgentSpec]:
    from agentorch_cli.cli.files import read_agent_file

    with fixed_by("explain", "agent"):
        return read_agent_file(name)


def _spec(
    agent_id: str | None,
    type: str | None,
    capabilities: list[str] | None,
    slots: int | None,
    pool: str | None,
    metadata: list[str] | None,
    command: str | None,
) -> AgentSpec:
    """The agent that the options describe, checked like one of a file."""
    from agentorch_cli.cli.files import sourced
    from agentorch_cli.documents import Document
    from agentorch_cli.taskfile import read_agents

    given = {
        "id": agent_id,
        "type": type,
        "capabilities": [one for word in capabilities or () for one in word.split(",")] or None,
        "slots": slots,
        "pool": pool,
        "metadata": dict(map(_pair, metadata)) if metadata else None,
        "exec": command,
    }
    table = {key: value for key, value in given.items() if value is not None}
    document = Document(table, "the command line")
    with sourced(document, "agent"):
        return read_agents(document)[0]


def _pair(word: str) -> tuple[str, Any]:
    """`key=value`; a value that is JSON is taken as such, any other as text."""
    key, sign, value = word.partition("=")
    if not sign or not key:
        raise UsageError(f'--metadata "{word}" is not KEY=VALUE')
    return key, json_or_text(value)


def _show_agents(session: Session, agents: list[AgentView], empty: str | None = None) -> None:
    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.AGENTS, agents)

    session.show(agents, draw, [agent.agent_id for agent in agents], empty)
