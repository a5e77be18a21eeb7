"""Traces: who submits names a span, agents are told theirs, and what happened is sent to a collector."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agentorch_cli import Agent, WorkFailed
from agentorch_cli.__main__ import run
from agentorch_cli.core.tracing import Context, of_attempt, parse_traceparent
from agentorch_cli.traces import Traces
from agentorch_cli.wiring import Orchestrator
from tests.conftest import quick_settings

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = CALLER[:-2] + "00"


class Collector(ThreadingHTTPServer):
    """Takes what OTLP/HTTP exporters send."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []
        self.services: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        for resource in request.resource_spans:
            facts = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.server.services.add(facts["service.name"])
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def facts(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


async def _run(
    url: str, tasks: list[dict[str, Any]], does: Any, collector: Collector | None, **call: Any
) -> Any:
    """Run tasks to their end, and the engine with them, so that all spans are sent."""
    settings = quick_settings(url, tracing={"endpoint": collector.url if collector is not None else ""})
    async with Orchestrator(settings) as orchestrator:
        agent = Agent("tracer", capabilities=["work"], slots=4)
        agent.add_handler(does)
        running = asyncio.create_task(agent.run(orchestrator.url, drain_timeout=0.0))
        specs = orchestrator.read([{"required_capabilities": ["work"], **one} for one in tasks])
        reply = await orchestrator.call("task.submit", tasks=specs, **call)
        ended = await orchestrator.call(
            "task.wait", task_ids=[one.task_id for one in reply.tasks], timeout_seconds=20
        )
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return ended


async def test_a_task_is_a_trace_from_its_submission_to_its_end(
    database_url: str, collector: Collector
) -> None:
    told: list[str] = []

    async def does(work: Any) -> int:
        told.append(work.traceparent)
        return 1

    await _run(database_url, [{"id": "one", "type": "count"}], does, collector, traceparent=CALLER)

    caller = parse_traceparent(CALLER)
    submit, queue, attempt, settle = (collector.named(n)[0] for n in ("submit", "queue", "attempt", "settle"))
    assert len(collector.spans) == 4
    assert {span.trace_id.hex() for span in collector.spans} == {f"{caller.trace_id:032x}"}
    assert submit.parent_span_id.hex() == f"{caller.span_id:016x}"
    assert queue.parent_span_id == attempt.parent_span_id == submit.span_id
    assert settle.parent_span_id == attempt.span_id
    assert told == [f"00-{attempt.trace_id.hex()}-{attempt.span_id.hex()}-01"]
    assert submit.start_time_unix_nano <= queue.start_time_unix_nano + 50_000_000
    assert queue.start_time_unix_nano <= queue.end_time_unix_nano
    assert attempt.start_time_unix_nano < attempt.end_time_unix_nano
    assert facts(attempt)["agentorch.task.id"] == "one"
    assert facts(attempt)["agentorch.agent.id"] == "tracer"
    assert facts(attempt)["agentorch.attempt.status"] == "completed"
    assert facts(submit)["agentorch.submission.tasks"] == 1
    assert collector.services == {"agentorch"}


async def test_each_run_of_a_schedule_is_a_trace(database_url: str, collector: Collector) -> None:
    settings = quick_settings(database_url, tracing={"endpoint": collector.url})
    async with Orchestrator(settings) as orchestrator:
        await orchestrator.call(
            "schedule.add", name="hourly", cron="0 * * * *", tasks=[{"required_capabilities": ["work"]}]
        )
        await orchestrator.store.db.pool.execute("update schedules set next_at = now() - interval '1 second'")
        orchestrator.engine.timetable.wake()
        async with asyncio.timeout(10):
            while not (found := (await orchestrator.call("schedule.get", name="hourly")).last_tasks):
                await asyncio.sleep(0.01)
        by_hand = await orchestrator.call("schedule.run", name="hourly")
        task_ids = [*found, *(one.task_id for one in by_hand.tasks)]
        agent = Agent("tracer", capabilities=["work"])
        agent.add_handler(lambda work: 1)
        running = asyncio.create_task(agent.run(orchestrator.url, drain_timeout=0.0))
        await orchestrator.call("task.wait", task_ids=task_ids, timeout_seconds=20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    submits = {span.trace_id: span for span in collector.named("submit")}
    assert {facts(span)["agentorch.schedule.name"] for span in submits.values()} == {"hourly"}
    assert len(submits) == 2
    for attempt in collector.named("attempt"):
        assert attempt.parent_span_id == submits[attempt.trace_id].span_id


async def test_a_failed_attempt_is_an_error_and_each_attempt_is_a_span(
    database_url: str, collector: Collector
) -> None:
    tries: list[int] = []

    async def does(work: Any) -> int:
        tries.append(work.attempt)
        if work.attempt == 1:
            raise WorkFailed("no paper", code="empty")
        return 1

    await _run(database_url, [{"id": "one", "retries": 1, "backoff": 0}], does, collector)

    first, second = sorted(
        collector.named("attempt"), key=lambda span: facts(span)["agentorch.attempt.number"]
    )
    assert tries == [1, 2]
    assert (first.status.code, first.status.message) == (2, "no paper")
    assert facts(first)["agentorch.error.code"] == "empty"
    assert second.status.code == 0
    assert first.span_id != second.span_id and first.trace_id == second.trace_id


async def test_sub_tasks_are_children_of_the_work_that_submits_them(
    database_url: str, collector: Collector
) -> None:
    async def does(work: Any) -> Any:
        if work.task_id == "parent":
            return await work.submit({"id": "child", "required_capabilities": ["work"], "data": 1})
        return work.traceparent

    ended = await _run(database_url, [{"id": "parent"}], does, collector)

    attempts = {facts(span)["agentorch.task.id"]: span for span in collector.named("attempt")}
    assert attempts["child"].parent_span_id == attempts["parent"].span_id
    assert ended[0].result.split("-")[2] == attempts["child"].span_id.hex()


async def test_what_nobody_wants_kept_is_not_sent(database_url: str, collector: Collector) -> None:
    async def does(work: Any) -> Any:
        return work.traceparent

    ended = await _run(database_url, [{}], does, collector, traceparent=UNSAMPLED)

    assert ended[0].result.endswith("-00") and ended[0].result[3:35] == UNSAMPLED[3:35]
    assert collector.spans == []


async def test_without_traces_agents_and_sub_tasks_are_told_what_the_task_said(database_url: str) -> None:
    async def does(work: Any) -> Any:
        if work.task_id == "parent":
            child = {"required_capabilities": ["work"], "data": 1}
            return [work.traceparent, await work.submit(child)]
        return work.traceparent

    tasks = [{"id": "parent", "traceparent": CALLER}, {"id": "plain"}]
    ended = {one.task_id: one.result for one in await _run(database_url, tasks, does, None)}

    assert ended == {"parent": [CALLER, CALLER], "plain": None}


async def test_a_command_finds_its_span_in_the_environment(orchestrator: Orchestrator) -> None:
    await orchestrator.register_agent(
        "shell", capabilities=["work"], exec='cat > /dev/null; echo "\\"$TRACEPARENT\\""'
    )

    with_span = await orchestrator.submit({"required_capabilities": ["work"], "traceparent": CALLER})
    without = await orchestrator.submit({"required_capabilities": ["work"]})

    assert await with_span.result(20) == CALLER
    assert await without.result(20) == ""


async def test_nothing_of_it_is_imported_where_there_are_no_traces() -> None:
    program = (
        "import sys, agentorch_cli.wiring; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.stdout == "[]\n", done.stderr


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentorch_cli.errors import InvalidConfig

    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(InvalidConfig) as refused:
        Traces("http://127.0.0.1:1").open()
    assert refused.value.hint is not None and 'pip install "agentorch-cli[otel]"' in refused.value.hint


async def test_a_collector_that_is_not_there_stops_nothing(database_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("agentorch_cli.traces.FLUSH_SECONDS", 0.2)
    settings = quick_settings(database_url, tracing={"endpoint": "http://127.0.0.1:9"})
    async with Orchestrator(settings) as orchestrator:
        await orchestrator.register_agent("shell", capabilities=["work"], exec="cat > /dev/null; echo 1")
        handle = await orchestrator.submit({"required_capabilities": ["work"]})
        assert await handle.result(20) == 1


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "variable", "stored"),
    [
        (["--traceparent", CALLER], None, CALLER),
        ([], CALLER, CALLER),
        (["--traceparent", CALLER], UNSAMPLED, CALLER),
        ([], "nonsense", None),
        ([], None, None),
    ],
)
def test_the_span_comes_from_the_flag_or_the_environment(
    words: list[str],
    variable: str | None,
    stored: str | None,
    postgres: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import json

    import asyncpg

    from tests.databases import new_database

    url = asyncio.run(new_database(postgres, "traced"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if variable is not None:
        monkeypatch.setenv("TRACEPARENT", variable)
    Path("t.json").write_text('{"id": "one", "required_capabilities": ["x"]}')

    assert run(["--database-url", url, "task", "submit", "t.json", *words]) == 0

    async def options() -> Any:
        connection = await asyncpg.connect(url)
        found = await connection.fetchval("select options::text from task_distributions")
        await connection.close()
        return json.loads(found)

    assert asyncio.run(options()).get("traceparent") == stored


@pytest.mark.parametrize("text", ["x", CALLER[:-1], "ff" + CALLER[2:], CALLER.upper(), CALLER + "-00"])
def test_what_is_no_traceparent_is_refused(
    text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "t.json"
    file.write_text('{"type": "x"}')

    with pytest.raises(ValueError, match="must look like"):
        parse_traceparent(text)
    assert run(["task", "submit", str(file), "--dry-run", "--traceparent", text]) == 2
    assert "--traceparent must look like" in capsys.readouterr().err


def test_traceparents_are_read_and_written_alike() -> None:
    parsed = parse_traceparent(CALLER)

    assert str(parsed) == CALLER and parsed.is_sampled
    assert not parse_traceparent(UNSAMPLED).is_sampled
    assert parse_traceparent("01" + CALLER[2:] + "-more").trace_id == parsed.trace_id
    for zero in (re.sub("4bf9[0-9a-f]+", "0" * 32, CALLER), CALLER.replace("00f067aa0ba902b7", "0" * 16)):
        with pytest.raises(ValueError, match="may not name"):
            parse_traceparent(zero)
    one = of_attempt(parsed, "019a8f2e-7b1c-7d10-a3f4-52c8e09b1d6f")
    assert one == Context(parsed.trace_id, 0xA3F452C8E09B1D6F, 1)
