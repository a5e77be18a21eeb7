"""The one room that knows all rooms: builds store, engine, gateway and clients from Settings."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any, Self

from agentorch_cli import handlers, logs
from agentorch_cli.agents.agent import Agent
from agentorch_cli.agents.runners import exec_handler
from agentorch_cli.client import LocalClient
from agentorch_cli.config import Settings
from agentorch_cli.core import breaker
from agentorch_cli.core.balance import Bounds
from agentorch_cli.core.ladder import Policy
from agentorch_cli.core.model import AgentSpec, TaskSpec
from agentorch_cli.core.plan import plan
from agentorch_cli.core.scoring import Weights
from agentorch_cli.documents import Document
from agentorch_cli.engine.balancer import Balance
from agentorch_cli.engine.bus import Bus, News, Subscription
from agentorch_cli.engine.engine import Engine, Limits
from agentorch_cli.engine.pruner import Age
from agentorch_cli.engine.state import Report
from agentorch_cli.engine.stragglers import Patience
from agentorch_cli.engine.subtasks import Rules
from agentorch_cli.errors import (
    DatabaseUnreachable,
    InvalidConfig,
    NotAllowed,
    OrchestratorError,
    TaskFailed,
    UsageError,
)
from agentorch_cli.gateway.control import Control, ControlLimits
from agentorch_cli.gateway.hub import Hub
from agentorch_cli.gateway.keys import Keys
from agentorch_cli.gateway.server import Door, Gateway
from agentorch_cli.identity import new_id, new_id_text
from agentorch_cli.store.database import Database
from agentorch_cli.store.embedded import EmbeddedServer
from agentorch_cli.store.migrations import newest_version
from agentorch_cli.store.names import SEEN, names_of
from agentorch_cli.store.store import Store
from agentorch_cli.taskfile import check_budget, read_tasks, task_defaults
from agentorch_cli.tls import own_context, server_context
from agentorch_cli.traces import Traces
from agentorch_cli.views import AgentView, TaskView

log = logging.getLogger("agentorch")

SUPERVISE_EVERY = 1.0
"""Seconds between looks at the embedded server's process."""

PROBE_EVERY = 30.0
"""Seconds between questions to it: a process can be there and not answer."""


@contextlib.asynccontextmanager
async def open_store(settings: Settings, *, prepare: bool = True) -> AsyncIterator[Store]:
    """The store of these settings; the embedded server is started where no other is named.

    `prepare`: the schema is there afterwards, or SchemaMismatch is raised. The embedded database
    is ours alone and is made ready; another one is changed by `init-db` only.
    """
    async with contextlib.AsyncExitStack() as stack:
        dsn = settings.database.url
        if not dsn:
            server = EmbeddedServer(settings.data_dir, start_seconds=settings.database.start_timeout)
            dsn = await server.start()
            stack.push_async_callback(server.release)
        database = Database(
            dsn,
            node_id="orchestrator_client",
            **_limits(settings),
        )
        stack.push_async_callback(database.close)
        await database.open()
        if prepare:
            await _prepare(database, settings)
        yield store_of(database, settings)


def _limits(settings: Settings) -> dict[str, Any]:
    database = settings.database
    return {
        "pool_size": database.pool_size,
        "command_timeout": database.command_timeout,
        "connect_timeout": database.connect_timeout,
        "lock_timeout": database.lock_timeout,
        "idle_in_transaction_timeout": database.idle_in_transaction_timeout,
    }


async def _prepare(database: Database, settings: Settings) -> None:
    if not settings.database.url and await database.schema_version() != newest_version():
        await database.migrate()
    await database.require_schema()


@contextlib.asynccontextmanager
async def open_client(settings: Settings, *, prepare: bool = True) -> AsyncIterator[LocalClient]:
    """A client that runs operations in this process."""
    traces = traces_of(settings)
    async with open_store(settings, prepare=prepare) as store:
        try:
            async with LocalClient(context_of(store, settings, traces)) as client:
                yield client
        finally:
            if traces is not None:
                await asyncio.to_thread(traces.close)


# --- the engine in a program ----------------------------------------------------------------


class Handle:
    """A submitted task, to wait for."""

    def __init__(self, orchestrator: Orchestrator, task_id: str) -> None:
        self.task_id = task_id
        self._orchestrator = orchestrator

    async def result(self, timeout: float | None = None) -> Any:
        """The task's result. Raises TaskFailed with its reason, WaitTimedOut."""
        task = await self.wait(timeout)
        if task.status != "completed":
            reason = (task.error or {}).get("message", task.status)
            raise TaskFailed(f"task {self.task_id} is {task.status}: {reason}", task_id=self.task_id)
        return task.result

    async def wait(self, timeout: float | None = None) -> TaskView:
        """The task, once it is final. Raises WaitTimedOut."""
        found: list[TaskView] = await self._orchestrator.call(
            "task.wait", task_ids=[self.task_id], timeout_seconds=timeout
        )
        return found[0]

    async def cancel(self, reason: str | None = None) -> None:
        """Call it off."""
        await self._orchestrator.call("task.cancel", task_ids=[self.task_id], reason=reason)


class Orchestrator:
    """A node inside your program: store, engine and gateway.

    async with Orchestrator(settings) as orchestrator:
        await orchestrator.register_agent("counter", capabilities=["count"], exec="wc -w")
        handle = await orchestrator.submit({"required_capabilities": ["count"], "data": "a b"})
        print(await handle.result())
    """

    def __init__(self, settings: Settings | None = None) -> None:
        if settings is None:
            import os
            from pathlib import Path

            from agentorch_cli.config import load_settings

            settings = load_settings({}, os.environ, None, Path.cwd())
        self.settings = settings
        self.url = ""
        """Where agents connect."""
        self._stack = contextlib.AsyncExitStack()
        self._bus = Bus()
        self._hosted: dict[str, tuple[AgentSpec, asyncio.Task[None], asyncio.Event]] = {}
        self._hosting = asyncio.Lock()
        self._supervisor: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.drain_timeout = settings.engine.drain_timeout

    @property
    def store(self) -> Store:
        return self._store

    @property
    def engine(self) -> Engine:
        return self._engine

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _open(self) -> None:
        settings = self.settings
        engine_id = f"orchestrator_{new_id().hex[-12:]}"
        traces = traces_of(settings)
        if traces is not None:
            traces.open()
            self._stack.push_async_callback(asyncio.to_thread, traces.close)
        logs.name_node(engine_id)
        _refuse_open_door(settings)
        gateway = self._gateway = Gateway(door_of(settings), engine_id, report=Report)
        port = await gateway.bind()
        self._stack.push_async_callback(gateway.close)
        dsn = await self._open_database()
        database = Database(
            dsn,
            node_id=engine_id,
            **_limits(settings),
        )
        self._stack.push_async_callback(database.close)
        await database.open()
        await _prepare(database, settings)
        await _refuse_door_without_tokens(database, settings)
        self._store = store_of(database, settings)
        self._engine = Engine(
            self._store,
            gateway,
            Limits(
                pool=settings.engine.pool,
                most_running=settings.engine.max_concurrent_tasks,
                response_timeout=settings.engine.response_timeout,
                heartbeat_interval=settings.gateway.heartbeat_interval,
                lease_seconds=settings.engine.lease_seconds,
                sweep_interval=settings.engine.poll_interval,
                drain_timeout=settings.engine.drain_timeout,
                weights=Weights(settings.matching.performance_weight, settings.matching.load_weight),
                exploration=settings.matching.exploration,
                seed=settings.matching.seed,
                task_defaults=task_defaults(settings),
                subtasks=Rules(
                    settings.engine.max_subtask_depth,
                    settings.engine.max_subtasks,
                    settings.deadlocks.parking == "at_once",
                ),
                balance=Balance(
                    settings.balancing.enabled,
                    settings.balancing.interval,
                    Bounds(settings.balancing.high, settings.balancing.low),
                    settings.balancing.prefetch,
                ),
                stragglers=Patience(
                    settings.stragglers.enabled,
                    settings.stragglers.factor,
                    settings.stragglers.min_samples,
                    settings.stragglers.min_seconds,
                ),
                deadlocks=ladder_of(settings),
                deadlock_sweep_interval=settings.engine.deadlock_sweep_interval,
                deadlock_wait=settings.engine.deadlock_wait,
                breaker=breaker_of(settings),
                retention=Age(
                    settings.retention.tasks, settings.retention.keep_last, settings.retention.interval
                ),
            ),
        )
        self._engine.state.bus = self._bus
        self._engine.state.traces = traces
        self._stack.push_async_callback(self._engine.stop)
        await self._engine.start(port)
        self._context = context_of(self._store, settings, traces)
        self._context.waiting = self._engine.waiting
        gateway.pages = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            **{f"/names/{kind}": partial(self._names, kind) for kind in SEEN},
        }
        gateway.on_submit = self._engine.subtasks.take
        gateway.on_vote = self._engine.proposals.take
        self._keys = gateway.keys = Keys(database, is_required=wants_tokens(settings))
        limits = control_limits(settings)
        gateway.on_control = Control(self._context, self._keys, limits, engine_id, gateway.reader).converse
        gateway.desk = self._engine.desk
        if settings.gateway.hub_url:
            await self._join_hub(gateway, engine_id)
        host = settings.gateway.host
        shown = f"[{host}]" if ":" in host else host
        scheme = "wss" if settings.gateway.tls_cert is not None else "ws"
        self.url = f"{scheme}://{'127.0.0.1' if host in ('0.0.0.0', '::') else shown}:{port}/agents"  # noqa: S104
        self._own_tls = own_context(settings.gateway.tls_cert) if settings.gateway.tls_cert else None
        self._watch_keys = asyncio.create_task(self._keys.watch(), name="keys")
        self._follow = asyncio.create_task(self._follow_exec_agents(), name="exec agents")
        self._stack.push_async_callback(self._stop_hosted)
        await self.host_exec_agents()

    async def tell_of_others(self) -> None:
        """Log that other nodes share this database: whoever started one more by mistake should know."""
        own = self.engine.state.node_id
        others = [one for one in await self.call("node.list") if one.is_live and one.node_id != own]
        if others:
            is_one = len(others) == 1
            log.info(
                "%s %s this database, with its tasks and agents: agentorch node list",
                "another serve" if is_one else f"{len(others)} other serves",
                "shares" if is_one else "share",
            )

    async def _join_hub(self, gateway: Gateway, engine_id: str) -> None:
        """Serve the agents behind a hub too, from now until the end."""
        url, limit = self.settings.gateway.hub_url, self.settings.gateway.max_message_bytes
        hub = Hub(url, engine_id, gateway.receive_behind_hub, max_bytes=limit)
        joined = asyncio.create_task(hub.run(), name="hub")

        async def leave() -> None:
            joined.cancel()
            await asyncio.gather(joined, return_exceptions=True)

        self._stack.push_async_callback(leave)

    async def _open_database(self) -> str:
        if self.settings.database.url:
            return self.settings.database.url
        server = EmbeddedServer(self.settings.data_dir, start_seconds=self.settings.database.start_timeout)
        dsn = await server.start()
        self._stack.push_async_callback(server.release)
        self._supervisor = asyncio.create_task(_supervise(server), name="supervisor")
        self._stack.push_async_callback(self._stop_supervising)
        return dsn

    async def _stop_supervising(self) -> None:
        assert self._supervisor is not None
        self._supervisor.cancel()
        await asyncio.gather(self._supervisor, return_exceptions=True)

    async def stop(self, *, at_once: asyncio.Event | None = None) -> None:
        """Take nothing new, let agents finish for the drain timeout, give back what is left."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._gateway.drain()
        drain = asyncio.create_task(self._engine.drain(self.drain_timeout))
        cut = asyncio.create_task(at_once.wait()) if at_once is not None else None
        await asyncio.wait([drain, cut] if cut else [drain], return_when=asyncio.FIRST_COMPLETED)
        for task in (drain, cut):
            if task is not None:
                task.cancel()
        await self._stack.aclose()

    # --- agents that run inside serve -------------------------------------------------------

    async def host_exec_agents(self) -> None:
        """Run every registered agent that has a command; stop those that have none any more.

        One that another node took over is run here again once it is connected nowhere.
        """
        async with self._hosting:  # or what was read first would be done last
            found = await self._exec_specs()
            wanted = {spec.agent_id: spec for spec, _ in found}
            away = {spec.agent_id for spec, is_connected in found if not is_connected}
            for agent_id, (spec, running, _) in list(self._hosted.items()):
                if wanted.get(agent_id) != spec or (running.done() and agent_id in away):
                    await self._stop_one(agent_id)
            for agent_id, spec in wanted.items():
                if agent_id not in self._hosted:
                    self._host(spec)

    async def _exec_specs(self) -> list[tuple[AgentSpec, bool]]:
        import orjson

        return [
            (
                AgentSpec(
                    agent_id=row["agent_id"],
                    type=row["agent_type"],
                    capabilities=tuple(row["capabilities"]),
                    slots=row["slots"],
                    metadata=orjson.loads(row["metadata"]),
                    exec=row["exec"],
                ),
                row["is_connected"],
            )
            for row in await self._store.db.fetch("exec_agents")
        ]

    def _host(self, spec: AgentSpec) -> None:
        stop = asyncio.Event()
        agent = Agent(
            spec.agent_id,
            type=spec.type,
            capabilities=spec.capabilities,
            slots=spec.slots,
            prefetch=0,  # a process for each task takes far longer than the round trip that would be saved
            metadata=spec.metadata,
        )
        agent.add_handler(
            exec_handler(
                spec.exec or "",
                env_allow=[name for name in self.settings.exec.env.split(",") if name],
                output_limit=self.settings.exec.max_output_bytes,
            )
        )
        running = asyncio.create_task(
            agent.run(self.url, token=self._keys.own, stop=stop, drain_timeout=0.0, tls=self._own_tls),
            name=f"exec agent {spec.agent_id}",
        )
        running.add_done_callback(_agent_ended)
        self._hosted[spec.agent_id] = (spec, running, stop)

    async def _stop_one(self, agent_id: str) -> None:
        _, running, stop = self._hosted.pop(agent_id)
        stop.set()
        await asyncio.wait([running], timeout=5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def _stop_hosted(self) -> None:
        for task in (self._follow, self._watch_keys):
            task.cancel()
        await asyncio.gather(self._follow, self._watch_keys, return_exceptions=True)
        await asyncio.gather(*(self._stop_one(agent_id) for agent_id in list(self._hosted)))

    async def _follow_exec_agents(self) -> None:
        """For ever: registrations change while the engine runs, tokens end, and nodes take agents over."""
        changed = asyncio.Event()
        doubtful = asyncio.Event()

        def missed() -> None:
            changed.set()
            doubtful.set()

        def registered(_: str) -> None:
            changed.set()

        def revoked(payload: str) -> None:
            self._keys.revoked(payload)
            if payload == "*":
                missed()

        self._engine.others = {"agentorch_fleet": registered, "agentorch_tokens": revoked}
        self._engine.on_listening = missed
        missed()  # what was said before
        while True:
            try:
                async with asyncio.timeout(self.settings.engine.poll_interval):
                    await changed.wait()
            except TimeoutError:
                # nobody says when the node that took an agent over is gone
                if not any(running.done() for _, running, _ in self._hosted.values()):
                    continue
            changed.clear()
            try:
                if doubtful.is_set():
                    doubtful.clear()
                    await self._keys.check()
                await self.host_exec_agents()
            except DatabaseUnreachable as error:
                log.warning(
                    "cannot look for exec agents: %s", error
                )  # the listener comes back, and asks again
                doubtful.set()
            except Exception:
                log.exception("exec agents could not be started or stopped")

    # --- the public API ---------------------------------------------------------------------

    async def call(self, method: str, **parameters: Any) -> Any:
        """Any operation of `handlers`, by its name."""
        return await LocalClient(self._context).call(method, **parameters)

    async def register_agent(
        self,
        agent_id: str,
        *,
        type: str = "worker",
        capabilities: Sequence[str] = (),
        slots: int = 1,
        metadata: Mapping[str, Any] | None = None,
        exec: str | None = None,
        pool: str | None = None,
    ) -> AgentView:
        """Write an agent into the registry; with `exec`, run it here from now on."""
        spec = AgentSpec(agent_id, type, tuple(capabilities), slots, dict(metadata or {}), exec, pool)
        found: list[AgentView] = await self.call("agent.register", agents=[spec])
        await self.host_exec_agents()
        return found[0]

    async def submit(self, task: Mapping[str, Any] | TaskSpec) -> Handle:
        """Store one task, as a task file would say it. Raises InvalidTask, Conflict, NotFound."""
        return (await self.submit_all([task]))[0]

    async def submit_all(
        self, tasks: Sequence[Mapping[str, Any] | TaskSpec], *, budget: Mapping[str, Any] | None = None
    ) -> list[Handle]:
        """Store tasks as one submission, whole or not at all.

        `budget`: what they may use together, `cost_usd` and `tokens`.
        """
        specs = self.read(tasks)
        paid = {"budget": check_budget(budget)} if budget else {}
        reply = await self.call("task.submit", tasks=specs, **paid)
        return [Handle(self, one.task_id) for one in reply.tasks]

    def read(self, tasks: Sequence[Mapping[str, Any] | TaskSpec]) -> list[TaskSpec]:
        """Check tasks and make them a graph. Raises InvalidTask with every error.

        A TaskSpec is taken as it is: whoever makes one has checked it, or has it from here.
        """
        specs = [task for task in tasks if isinstance(task, TaskSpec)]
        if len(specs) == len(tasks):
            return specs
        if specs:
            raise UsageError("a submission is of TaskSpecs or of mappings, not of both")
        document = Document({"tasks": [dict(task) for task in tasks if isinstance(task, Mapping)]}, "submit")
        return plan_of(document, self.settings)

    def events(self) -> Subscription:
        """What happens from here on, as an async iterator of `News`; it may be asked for before the start."""
        return self._bus.subscribe()

    # --- pages ------------------------------------------------------------------------------

    async def _healthz(self) -> tuple[int, str, str]:
        return 200, "text/plain; charset=utf-8", "alive\n"

    async def _readyz(self) -> tuple[int, str, str]:
        if self._is_stopping:
            return 503, "text/plain; charset=utf-8", "stopping\n"
        try:
            await self._store.db.fetch("clock")
        except OrchestratorError as error:
            return 503, "text/plain; charset=utf-8", f"{error}\n"
        return 200, "text/plain; charset=utf-8", "ready\n"

    async def _names(self, kind: str) -> tuple[int, str, str]:
        """For the completion of shells: an id a line, and what else tells it apart."""
        known = await names_of(self._store.db, kind)
        body = "".join(f"{one}\t{' '.join(also.split())}\n" for one, also in known.items())
        return 200, "text/plain; charset=utf-8", body

    async def _metrics(self) -> tuple[int, str, str]:
        from agentorch_cli import __version__
        from agentorch_cli.gateway.metrics import Facts, render

        engine, state, database = self._engine, self._engine.state, self._store.db
        facts = Facts(
            numbers={**engine.desk.facts(), "sessions": len(self._gateway.sessions)},
            meters=state.meters,
            fleet=await engine.census.take(),
            labelled={
                "leader": {state.pool: float(state.is_leader)},
                "votes": state.meters.votes,
                "database_errors": database.errors,
                "database_connections": database.connections(),
            },
            version=__version__,
            node_id=state.node_id,
        )
        return 200, "text/plain; version=0.0.4; charset=utf-8", render(facts)


def ladder_of(settings: Settings) -> Policy:
    """What is done about deadlocks."""
    return Policy(
        resolves=settings.deadlocks.resolve,
        parks=settings.deadlocks.parking != "never",
        lends=settings.deadlocks.lending,
        requeues=settings.deadlocks.requeue,
        max_restarts=settings.deadlocks.max_restarts,
        fails_rings=settings.deadlocks.circular_dependency == "fail",
        missing_after=settings.deadlocks.missing_dependency_after,
    )


def breaker_of(settings: Settings) -> breaker.Rules:
    """When an agent that keeps failing gets nothing for a while."""
    return breaker.Rules(
        enabled=settings.breaker.enabled,
        failures=settings.breaker.failures,
        tasks=settings.breaker.tasks,
        backoff=settings.breaker.backoff,
        max_backoff=max(settings.breaker.backoff, settings.breaker.max_backoff),
    )


def store_of(database: Database, settings: Settings) -> Store:
    """The store with the settings that its statements need."""
    return Store(
        database,
        aging_seconds=settings.engine.aging_seconds,
        half_life_seconds=settings.matching.half_life,
    )


def traces_of(settings: Settings) -> Traces | None:
    """Where spans go; None where nobody wants any."""
    return Traces(settings.tracing.endpoint) if settings.tracing.endpoint else None


def context_of(store: Store, settings: Settings, traces: Traces | None = None) -> handlers.Context:
    """What operations work with."""
    return handlers.Context(
        store,
        traces=traces,
        policy=ladder_of(settings),
        grace=3 * settings.gateway.heartbeat_interval,
        task_defaults=task_defaults(settings),
        data_dir=None if settings.database.url else settings.data_dir,
    )


def plan_of(document: Document, settings: Settings) -> list[TaskSpec]:
    """The tasks of a document as a graph. Raises InvalidTask with every error."""
    file = read_tasks(
        document,
        new_id=new_id_text,
        defaults=task_defaults(settings),
    )
    return list(plan(file.tasks, where=file.where).tasks)


async def serve(
    settings: Settings,
    *,
    on_ready: Callable[[str], None] | None = None,
    stop: asyncio.Event,
    stop_now: asyncio.Event | None = None,
) -> None:
    """Run a node until `stop` is set; `stop_now` ends the waiting for what runs."""
    orchestrator = Orchestrator(settings)
    logs.configure(settings.logging.level, settings.logging.format)
    _raise_descriptor_limit()
    await orchestrator.__aenter__()
    _collect_less_often()
    try:
        if on_ready is not None and not stop.is_set():
            on_ready(orchestrator.url)
            with contextlib.suppress(OrchestratorError):  # a database that is away is waited for
                await orchestrator.tell_of_others()
        await stop.wait()
    finally:
        await orchestrator.stop(at_once=stop_now)


def _collect_less_often() -> None:
    """Cycles are rare here, and what is alive is much: thousands of tasks and agents, which each full
    collection walks. Measured: a quarter of the time of a busy engine with Python's own thresholds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _raise_descriptor_limit() -> None:
    """A connection is a descriptor: take what the system allows, not the small number it starts with."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _supervise(server: EmbeddedServer) -> None:
    """For ever: the embedded server comes back if it dies."""
    loop = asyncio.get_running_loop()
    probe_at = loop.time() + PROBE_EVERY
    while True:
        await asyncio.sleep(SUPERVISE_EVERY)
        if server.seems_alive() and loop.time() < probe_at:
            continue
        probe_at = loop.time() + PROBE_EVERY
        try:
            if await server.ensure_running():
                log.warning("the embedded PostgreSQL had died and runs again")
        except OrchestratorError as error:
            log.warning("the embedded PostgreSQL cannot be started again yet: %s", error)
            probe_at = 0.0


def _agent_ended(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and running.exception() is not None:
        log.warning("%s ended: %s", running.get_name(), running.exception())


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def wants_tokens(settings: Settings) -> bool:
    """Whether whoever connects must show a token."""
    gateway = settings.gateway
    return gateway.require_tokens or not (is_loopback(gateway.host) or gateway.insecure)


def door_of(settings: Settings) -> Door:
    """The gateway's limits. Raises InvalidConfig where the certificate cannot be used."""
    gateway = settings.gateway
    if (gateway.tls_cert is None) != (gateway.tls_key is None):
        raise InvalidConfig("gateway.tls_cert and gateway.tls_key go together: one of them is missing")
    tls = None
    if gateway.tls_cert is not None and gateway.tls_key is not None:
        tls = server_context(gateway.tls_cert, gateway.tls_key)
    return Door(
        host=gateway.host,
        port=gateway.port,
        max_message_bytes=gateway.max_message_bytes,
        heartbeat_interval=gateway.heartbeat_interval,
        register_timeout=gateway.register_timeout,
        most_connections=gateway.max_connections,
        frames_per_second=gateway.max_frames_per_second,
        allowed_hosts=frozenset(name for name in gateway.allowed_hosts.split(",") if name),
        tls=tls,
    )


def control_limits(settings: Settings) -> ControlLimits:
    """What one control connection may do."""
    gateway = settings.gateway
    return ControlLimits(
        max_bytes=gateway.max_control_bytes,
        most_requests=gateway.max_requests,
        most_subscriptions=gateway.max_subscriptions,
        frames_per_second=gateway.max_frames_per_second,
        hello_timeout=gateway.register_timeout,
        send_timeout=gateway.send_timeout,
        allow_exec=gateway.allow_remote_exec,
        task_defaults=task_defaults(settings),
    )


def _refuse_open_door(settings: Settings) -> None:
    gateway = settings.gateway
    if is_loopback(gateway.host) or gateway.insecure or gateway.tls_cert is not None:
        return
    raise NotAllowed(
        f"serve would listen on {gateway.host}, where others could read along and connect",
        hint="give --tls-cert and --tls-key and make tokens (agentorch token create), stay on 127.0.0.1,"
        " or say --insecure if the network is yours alone",
    )


async def _refuse_door_without_tokens(database: Database, settings: Settings) -> None:
    if not wants_tokens(settings) or is_loopback(settings.gateway.host):
        return
    row = await database.fetch_one("has_token")
    if row is None or not row["has_token"]:
        raise NotAllowed(
            f"serve would listen on {settings.gateway.host}, and there is no token to come in with",
            hint="make one here, against the same database",
            fix="agentorch token create NAME --scope admin",
        )


__all__ = [
    "Agent",
    "Handle",
    "News",
    "Orchestrator",
    "open_client",
    "serve",
]
