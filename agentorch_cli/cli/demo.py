"""`agentorch demo`: a small fleet on real work, from nothing to results.

Everything that it shows is what a user's own fleet does: an engine on a free port with an
embedded PostgreSQL, agents in processes of their own that connect over WebSocket, task
files, and the operations that every command calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import ENDINGS, Session
from agentorch_cli.errors import Conflict, WaitTimedOut

if TYPE_CHECKING:
    from agentorch_cli.cli.demo_page import Outcome
    from agentorch_cli.cli.fleet import Fleet
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.client import Client
    from agentorch_cli.views import StatusView, SubmitReply, TaskView

FRAME_SECONDS = 0.1
"""Between two looks at the fleet; the whole demonstration takes a few seconds."""

JOIN_SECONDS = 60.0
"""For all agents to connect: on a busy machine a dozen interpreters take a while to start."""

WORK_SECONDS = 120.0
"""For all tasks; they take a second or two."""


def demo(ctx: typer.Context) -> None:
    """Run a small fleet on real work, from nothing to results.

    $ agentorch demo
    $ agentorch demo --data-dir .demo

    A dozen agents count, extract, summarise and check documents that come with the program,
    cost a footbridge and choose sites for gauges. With --data-dir everything is kept, and can
    be looked at afterwards; without it, nothing is left behind. Where serve is running on
    that folder it does nothing: its agents would mix with the fleet there.
    """
    session = Session.of(ctx)
    with _data_dir(session) as is_kept:
        session.more_flags |= {
            "gateway.host": "127.0.0.1",
            "gateway.port": 0,
            "logging.level": "warning",
            # whatever the environment says: a demonstration belongs into a database of its own
            "database.url": session.database_url or "",
        }
        session.only_here("demo", "runs a fleet on this machine")
        outcome = session.run(_run(session), is_long=True)
        _show(session, outcome, is_kept)


app = single(demo)


@contextlib.contextmanager
def _data_dir(session: Session) -> Iterator[bool]:
    """A folder for this once, unless one was given; gives whether it is kept."""
    if session.data_dir is not None:
        yield True
        return
    session.data_dir = folder = tempfile.mkdtemp(prefix="agentorch-demo-")
    try:
        yield False
    finally:
        with _signals_held():
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """They come when the block is over: what is half removed would stay for ever."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *ENDINGS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _run(session: Session) -> Outcome:
    """Start everything, do the tasks, and stop everything; gives how the fleet stood at the end."""
    from agentorch_cli.cli import demo_page
    from agentorch_cli.cli.files import read_submission
    from agentorch_cli.cli.fleet import examples_folder, run_fleet, served_agent

    examples = examples_folder()
    plan = read_submission([str(examples / "tasks")], session.settings)
    await _refuse_company(session)
    await _refuse_namesakes(session)
    session.say("Starting PostgreSQL and the engine.")
    async with _engine(session) as url, session.connect() as client:
        log = Path(session.settings.data_dir) / "agents.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        async with run_fleet(examples, url, log) as fleet:
            spec = served_agent(examples)
            await client.call("agent.register", agents=[spec])
            count = await _all_online(client, fleet)
            session.say(f"{count} agents have connected to {url}.")
            reply = await client.call("task.submit", tasks=plan.tasks)
            session.say(f"{len(reply.tasks)} tasks are submitted from {examples / 'tasks'}.")
            with demo_page.display(session) as update:
                tasks = await _follow(client, fleet, reply, update)
            return await _outcome(client, tasks)


async def _refuse_company(session: Session) -> None:
    """Raises Conflict where a fleet is at work: ours would cut off agents of its ids, and get its tasks."""
    from agentorch_cli.cli.nodes import living_nodes

    nodes = await living_nodes(session)
    if nodes:
        there = ", ".join(f"{node.host} (pid {node.pid})" for node in nodes)
        place = "this database" if session.database_url else session.settings.data_dir
        raise Conflict(
            f"serve is running on {place}",
            why=f"The agents of the demonstration would mix with the fleet of {there}, and take its tasks.",
            hint="leave --data-dir out, or name a new folder",
            fix="agentorch demo",
        )


async def _refuse_namesakes(session: Session) -> None:
    """Raises Conflict where `serve` would run commands under ids of ours: each would cut the other off."""
    from agentorch_cli.cli.fleet import SCRIPTS

    if session.makes_database:
        return
    async with session.connect() as client:
        taken = sorted(
            agent.agent_id
            for agent in await client.call("agent.list")
            if agent.exec and agent.agent_id in SCRIPTS
        )
    if taken:
        place = "this database" if session.database_url else session.settings.data_dir
        has = f"the agents {', '.join(taken)}" if len(taken) > 1 else f"an agent {taken[0]}"
        raise Conflict(
            f"{place} has {has} with a command; an agent of the demonstration is called that too",
            why="serve would run the command under an id under which an agent of the demonstration connects.",
            hint="leave --data-dir out, or name a new folder",
            fix="agentorch demo",
        )


@contextlib.asynccontextmanager
async def _engine(session: Session) -> AsyncIterator[str]:
    """The engine in this process, as `serve` runs it; gives the address for agents."""
    from agentorch_cli import wiring

    stop, stop_now = asyncio.Event(), asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        wiring.serve(session.settings, on_ready=ready.set_result, stop=stop, stop_now=stop_now)
    )
    first: list[asyncio.Future[Any]] = [serving, ready]
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await serving  # raises what kept it from starting
        yield await ready
    except BaseException:
        stop_now.set()
        raise
    finally:
        stop.set()
        await _see_out(serving, stop_now)
    await serving


async def _see_out(serving: asyncio.Task[None], stop_now: asyncio.Event) -> None:
    """Until the engine has stopped. A signal makes that quicker, and does not cut it off: an engine that
    stops halfway leaves its PostgreSQL behind.
    """
    cut_off: asyncio.CancelledError | None = None
    while not serving.done():
        try:
            await asyncio.wait({serving})
        except asyncio.CancelledError as error:
            cut_off = error
            stop_now.set()
    if cut_off is not None:
        raise cut_off


async def _all_online(client: Client, fleet: Fleet) -> int:
    """Wait until the whole fleet has connected, so that votes have all their voters. Raises WaitTimedOut."""
    from agentorch_cli.cli.fleet import SCRIPTS

    wanted, count = len(SCRIPTS) + 1, 0
    try:
        async with asyncio.timeout(JOIN_SECONDS):
            while count < wanted:
                fleet.check()
                await asyncio.sleep(0.02)
                count = len(await client.call("agent.list", status="online"))
    except TimeoutError:
        raise WaitTimedOut(f"{count} of {wanted} agents connected within {JOIN_SECONDS:.0f} s") from None
    return count


async def _follow(
    client: Client,
    fleet: Fleet,
    reply: SubmitReply,
    update: Callable[[StatusView, list[TaskView]], None],
) -> list[TaskView]:
    """Wait for the tasks, and show the fleet meanwhile. Raises WaitTimedOut."""
    task_ids = [task.task_id for task in reply.tasks]
    waiting = asyncio.ensure_future(client.call("task.wait", task_ids=task_ids, timeout_seconds=WORK_SECONDS))
    try:
        while True:
            status = await client.call("status.get", limit=20)
            tasks = await client.call("task.list", submission_id=reply.submission_id, limit=len(task_ids))
            update(status, tasks)
            fleet.check()
            if waiting.done():
                return list(await waiting)
            await asyncio.wait({waiting}, timeout=FRAME_SECONDS)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _outcome(client: Client, tasks: list[TaskView]) -> Outcome:
    """How the fleet stands.

    What each agent did is counted from the attempts: the registry learns of it a heartbeat later.
    """
    from agentorch_cli.cli.demo_page import Outcome

    stories = [await client.call("task.get", task_id=task.task_id) for task in tasks]
    done = Counter((attempt.agent_id, attempt.status) for story in stories for attempt in story.attempts)
    agents = [
        agent.model_copy(
            update={"completed": done[agent.agent_id, "completed"], "failed": done[agent.agent_id, "failed"]}
        )
        for agent in await client.call("agent.list", status="online")
    ]
    return Outcome(agents, tasks, [story for story in stories if story.decision])


def _show(session: Session, outcome: Outcome, is_kept: bool) -> None:
    """Answer with what came of it. Raises TaskFailed unless every task has completed."""
    from agentorch_cli.cli import demo_page
    from agentorch_cli.cli.follow import check_outcomes

    def draw(page: Page) -> None:
        demo_page.draw(page, session, outcome, is_kept)

    session.show(outcome.tasks, draw, [task.task_id for task in outcome.tasks])
    check_outcomes(outcome.tasks)
