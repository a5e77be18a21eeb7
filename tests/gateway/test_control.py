"""The control endpoint as any client meets it: JSON-RPC, who may what, and what comes of bad manners."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agentorch_cli import handlers
from agentorch_cli.gateway.keys import ANYBODY, Caller
from agentorch_cli.handlers.access import ACCESS
from agentorch_cli.handlers.wire import operation
from agentorch_cli.tokens import SCOPES, make
from agentorch_cli.wiring import Orchestrator


class Rpc:
    """A client of the page docs/protocol.md, and of nothing else."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.notices: list[dict[str, Any]] = []
        self._next = 0

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The whole answer."""
        self._next += 1
        await self.send({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params})
        while True:
            answer = await self.receive()
            if answer.get("id") == self._next:
                return answer
            self.notices.append(answer)

    async def result(self, method: str, **params: Any) -> Any:
        answer = await self.ask(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    async def code(self, method: str, **params: Any) -> str:
        """The code of the error that comes of it."""
        answer = await self.ask(method, **params)
        assert "error" in answer, answer
        return str(answer["error"]["data"]["code"])

    async def send(self, document: Any) -> None:
        await self.connection.send(document if isinstance(document, str | bytes) else json.dumps(document))

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            answer: dict[str, Any] = json.loads(await self.connection.recv())
        assert answer["jsonrpc"] == "2.0"
        return answer

    async def closed(self, seconds: float = 5) -> int:
        """The code with which the server closed the connection."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(seconds):
                while True:
                    await self.connection.recv()
        return self.connection.close_code or 0


def control(orchestrator: Orchestrator) -> str:
    return orchestrator.url.replace("/agents", "/control")


@contextlib.asynccontextmanager
async def talk(orchestrator: Orchestrator, token: str | None = None, **options: Any) -> AsyncIterator[Rpc]:
    headers = {"Authorization": f"Bearer {token}"} if token else None
    async with connect(control(orchestrator), additional_headers=headers, **options) as connection:
        yield Rpc(connection)


@pytest.fixture
async def rpc(orchestrator: Orchestrator) -> AsyncIterator[Rpc]:
    async with talk(orchestrator) as rpc:
        yield rpc


async def new_token(orchestrator: Orchestrator, *scopes: str, name: str = "ada", **options: Any) -> str:
    made = await orchestrator.call("token.create", name=name, scopes=scopes, **options)
    return str(made.token)


# --- the form -----------------------------------------------------------------------------------


async def test_a_client_that_knows_only_the_page_brings_a_task_and_gets_its_result(
    orchestrator: Orchestrator, rpc: Rpc, fleet: Any
) -> None:
    agent = await fleet.join()

    hello = await rpc.result("hello")
    reply = await rpc.result("task.submit", tasks=[{"requiredCapabilities": ["work"], "data": {"n": 1}}])
    task_id = reply["tasks"][0]["task_id"]
    work = await agent.expect("execute_task")
    await agent.finish(work, result={"n": 2})
    (task,) = await rpc.result("task.wait", task_ids=[task_id])

    assert hello["protocol"] == 1 and hello["scopes"] == ["admin"]
    assert work["data"]["task"]["data"] == {"n": 1}
    assert (task["status"], task["result"]) == ("completed", {"n": 2})


BAD_FRAMES = {
    "{": -32700,
    "[]": -32600,
    '"x"': -32600,
    '{"method": "status.get", "id": 1}': -32600,
    '{"jsonrpc": "2.0", "method": 5, "id": 1}': -32600,
    '{"jsonrpc": "2.0", "method": "status.get", "id": {}}': -32600,
    '{"jsonrpc": "2.0", "method": "status.get", "id": 1, "params": []}': -32602,
    '{"jsonrpc": "2.0", "method": "status.get", "id": 1, "params": {"x": 1}}': -32602,
    '{"jsonrpc": "2.0", "method": "task.get", "id": 1}': -32602,
    '{"jsonrpc": "2.0", "method": "task.get", "id": 1, "params": {"task_id": 5}}': -32602,
    '{"jsonrpc": "2.0", "method": "task.get", "id": 1, "params": {"task_id": "\\u0000"}}': -32700,
    '{"jsonrpc": "2.0", "method": "task.list", "id": 1, "params": {"limit": -1}}': -32602,
    '{"jsonrpc": "2.0", "method": "task.list", "id": 1, "params": {"limit": 1e9}}': -32602,
    '{"jsonrpc": "2.0", "method": "task.submit", "id": 1, "params": {"tasks": {}}}': -32602,
    '{"jsonrpc": "2.0", "method": "task.submit", "id": 1, "params": {"tasks": [{"priority": 11}]}}': -32602,
    '{"jsonrpc": "2.0", "method": "subscribe", "id": 1, "params": {"kinds": "x"}}': -32602,
    '{"jsonrpc": "2.0", "method": "__init__", "id": 1}': -32601,
    '{"jsonrpc": "2.0", "method": "schema.apply", "id": 1}': -32000,
    '{"jsonrpc": "2.0", "method": "subscribe", "id": 1, "params": {"cursor": "x"}}': -32000,
    '{"jsonrpc": "2.0", "method": "unsubscribe", "id": 1, "params": {"subscription": 9}}': -32000,
}


async def test_what_is_wrong_is_told_and_the_connection_stays_open(rpc: Rpc) -> None:
    for frame, code in BAD_FRAMES.items():
        await rpc.send(frame)
        answer = await rpc.receive()
        assert answer["error"]["code"] == code, (frame, answer)
        assert answer["error"]["data"]["message"], frame
    await rpc.send(b"binary")
    assert (await rpc.receive())["error"]["code"] == -32600
    await rpc.send("[" * 100_000)
    assert (await rpc.receive())["error"]["code"] == -32700

    assert (await rpc.result("task.list")) == []


async def test_a_notification_gets_no_answer(orchestrator: Orchestrator, rpc: Rpc) -> None:
    await rpc.send({"jsonrpc": "2.0", "method": "task.submit", "params": {"tasks": [{"id": "quiet"}]}})
    await rpc.send({"jsonrpc": "2.0", "method": "task.submit", "params": {"tasks": [{"priority": 99}]}})

    answer = await rpc.ask("task.wait", task_ids=["quiet"], timeout_seconds=0.1)

    assert answer["error"]["data"]["code"] in ("wait_timed_out", "not_found")
    assert rpc.notices == []


async def test_a_task_of_a_request_is_checked_like_one_of_a_file(rpc: Rpc) -> None:
    answer = await rpc.ask("task.submit", tasks=[{"type": "x" * 300, "prioritty": 1}])

    told = [one["message"] for one in answer["error"]["data"]["details"]["errors"]]
    assert answer["error"]["data"]["code"] == "invalid_task"
    assert len(told) == 2 and 'did you mean "priority"' in " ".join(told)


# --- who may what -------------------------------------------------------------------------------


def test_every_operation_says_what_it_wants_of_a_token() -> None:
    assert ACCESS.keys() == handlers.HANDLERS.keys()
    assert {one.scope for one in ACCESS.values()} <= {*SCOPES, None}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_allows_what_the_table_says_and_nothing_else(scope: str) -> None:
    caller = Caller("ada", "id", (scope,))

    allowed = {name for name, access in ACCESS.items() if access.scope and caller.may(access.scope)}

    offered = {name for name, access in ACCESS.items() if access.scope}
    assert allowed == (offered if scope == "admin" else {n for n, a in ACCESS.items() if a.scope == scope})
    assert not caller.may_be("anna")
    assert ANYBODY.may_be("anna")


async def test_each_method_is_refused_without_its_scope(orchestrator: Orchestrator) -> None:
    token = await new_token(orchestrator, "agent:nobody")
    async with talk(orchestrator, token) as rpc:
        for method in [*ACCESS, "subscribe"]:
            assert await rpc.code(method) == "not_allowed", method


async def test_a_server_that_wants_tokens_lets_nobody_in_without(start_engine: Any) -> None:
    engine = await start_engine(gateway={"require_tokens": True})
    token = await new_token(engine, "read")

    async with talk(engine, token) as rpc:
        assert await rpc.result("agent.list") == []
    for wrong in (make()[1], token[:-1] + ("a" if token[-1] != "a" else "b"), "x", engine._keys.own[:-1]):
        async with talk(engine, wrong) as rpc:
            assert (await rpc.receive())["error"]["data"]["code"] == "unauthorized"
            assert await rpc.closed() == 1008
    async with talk(engine) as rpc:
        await rpc.send({"jsonrpc": "2.0", "id": 1, "method": "agent.list"})
        assert (await rpc.receive())["error"]["data"]["code"] == "unauthorized"
        assert await rpc.closed() == 1008
    async with talk(engine) as rpc:
        assert (await rpc.result("hello", token=token))["name"] == "ada"
        assert await rpc.result("agent.list") == []
    async with talk(engine) as rpc:  # says nothing: register_timeout is 1 s here
        assert await rpc.closed(3) == 1008
    async with talk(engine) as rpc:  # a stranger may not bring much
        await rpc.send('{"jsonrpc": "2.0", "id": 1, "method": "hello", "params": "' + "x" * 70_000 + '"}')
        assert await rpc.closed() == 1009


async def test_metrics_want_a_token_where_connections_do(start_engine: Any) -> None:
    engine = await start_engine(gateway={"require_tokens": True})
    token = await new_token(engine, "read")
    parts = urlsplit(engine.url)

    async def get(path: str, header: str = "") -> bytes:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.split(b"\r\n")[0]

    assert b"401" in await get("/metrics")
    assert b"200" in await get("/metrics", f"Authorization: Bearer {token}\r\n")
    assert b"200" in await get("/healthz")


async def test_who_asks_is_the_token_and_not_the_frame(orchestrator: Orchestrator) -> None:
    token = await new_token(orchestrator, "submit", "vote", "read", "agent:bot-*")
    async with talk(orchestrator, token) as rpc:
        opened = await rpc.result(
            "consensus.open", topic="t", voters=["ada", "bob", "bot-1"], opened_by="somebody else"
        )
        decision = opened["decision_id"]
        forged = await rpc.code("consensus.vote", decision_id=decision, agent_id="bob", vote=1)
        nameless = await rpc.code("consensus.vote", decision_id=decision, vote=1)
        await rpc.result("consensus.vote", decision_id=decision, agent_id="ada", vote=1)
        await rpc.result("consensus.vote", decision_id=decision, agent_id="bot-1", vote=2)

    assert opened["opened_by"] == "ada"
    assert (forged, nameless) == ("not_allowed", "not_allowed")


async def test_an_agent_is_who_its_token_says(start_engine: Any, fleet_of: Any) -> None:
    engine = await start_engine(gateway={"require_tokens": True})
    token = await new_token(engine, "agent:crew-*", "agent:solo")
    headers = {"Authorization": f"Bearer {token}"}
    fleet = fleet_of(engine)

    for agent_id in ("crew-1", "solo"):
        agent = await fleet.connect(agent_id, additional_headers=headers)
        await agent.register("work")
        await agent.send({"type": "agent_heartbeat", "agentId": "crew-9"})
        assert (await agent.expect("error"))["code"] == "not_allowed"
    by_frame = await fleet.connect("crew-2")
    await by_frame.register("work", token=token)
    for agent_id, shown in (
        ("cre", token),
        ("crew", token),
        ("solo2", token),
        ("crew-3", None),
        ("solo", "x"),
    ):
        stranger = await fleet.connect(agent_id)
        frame = {"type": "register", "agentId": agent_id, "capabilities": []}
        await stranger.send({**frame, **({"token": shown} if shown else {})})
        assert (await stranger.expect("error"))["code"] in ("unauthorized", "not_allowed"), agent_id
        assert (await stranger.closed())[0] == 1008


async def test_commands_of_agents_are_not_taken_from_afar(start_engine: Any) -> None:
    agent = {"id": "a", "exec": "rm -rf /"}
    refusing = await start_engine()
    async with talk(refusing) as rpc:
        assert await rpc.code("agent.register", agents=[agent]) == "not_allowed"
        assert (await rpc.result("agent.register", agents=[{"id": "b"}]))[0]["exec"] is None
    await refusing.stop()
    allowing = await start_engine(gateway={"allow_remote_exec": True})
    async with talk(allowing) as rpc:
        (known,) = await rpc.result("agent.register", agents=[{"id": "c", "exec": "echo 1"}])
    assert known["exec"] == "echo 1"


# --- tokens -------------------------------------------------------------------------------------


async def test_a_revoked_token_closes_what_it_opened_on_every_node(start_engine: Any, fleet_of: Any) -> None:
    first, second = await start_engine(), await start_engine()
    token = await new_token(first, "read", "agent:anna", name="leaving")
    staying = await new_token(first, "read", name="staying")
    agent = await fleet_of(second).connect("anna", additional_headers={"Authorization": f"Bearer {token}"})
    await agent.register("work")
    async with talk(first, token) as here, talk(second, token) as there, talk(second, staying) as other:
        await here.result("hello")
        await there.result("hello")
        loop = asyncio.get_running_loop()
        began = loop.time()

        await first.call("token.revoke", names=["leaving"])

        codes = [await here.closed(), await there.closed(), (await agent.closed())[0]]
        assert codes == [1008, 1008, 1008]
        assert loop.time() - began < 2
        assert (await other.result("hello"))["name"] == "staying"
    async with talk(second, token) as again:
        assert (await again.receive())["error"]["data"]["code"] == "unauthorized"


async def test_a_word_of_the_end_that_was_lost_is_made_up_for(orchestrator: Orchestrator) -> None:
    """Whoever listens for revocations asks about every token in use when it has listened anew."""
    token = await new_token(orchestrator, "read")
    async with talk(orchestrator, token) as rpc:
        await rpc.result("hello")
        async with orchestrator.store.db.pool.acquire() as connection:
            await connection.execute("update tokens set revoked_at = now()")
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name like '% listen'"
            )
        assert await rpc.closed(3) == 1008


async def test_an_expired_token_closes_what_it_opened(orchestrator: Orchestrator) -> None:
    token = await new_token(orchestrator, "read", expires_seconds=1.0)
    async with talk(orchestrator, token) as rpc:
        assert (await rpc.result("hello"))["name"] == "ada"
        assert await rpc.closed(4) == 1008
    (view,) = await orchestrator.call("token.list", every=True)
    assert view.status == "expired" and view.last_used_at is not None


async def test_only_a_hash_is_kept_and_the_last_use_is_not_written_each_time(
    orchestrator: Orchestrator,
) -> None:
    token = await new_token(orchestrator, "read")
    asked: list[str] = []
    fetch = orchestrator.store.db.fetch

    async def counted(name: str, *arguments: Any) -> Any:
        asked.append(name)
        return await fetch(name, *arguments)

    async def once(name: str, *arguments: Any) -> Any:
        return next(iter(await counted(name, *arguments)), None)

    orchestrator.store.db.fetch, orchestrator.store.db.fetch_one = counted, once  # type: ignore[method-assign]
    for _ in range(20):
        async with talk(orchestrator, token) as rpc:
            await rpc.result("hello")
    async with asyncio.timeout(60):  # the note of its use is written twice a second at most
        while "touch_tokens" not in asked:
            await asyncio.sleep(0.02)
    async with orchestrator.store.db.pool.acquire() as connection:
        (row,) = map(dict, await connection.fetch("select * from tokens"))

    assert token.split("_")[2] not in str(row) and token not in str(row)
    assert (asked.count("find_token"), asked.count("touch_tokens")) == (1, 1)


# --- events, and who is slow --------------------------------------------------------------------


async def test_events_come_from_the_cursor_on_and_only_those_that_are_wanted(
    orchestrator: Orchestrator, rpc: Rpc
) -> None:
    begun = await rpc.result("subscribe", kinds=["task_submitted"], taskId="b")
    for task_id in ("a", "b", "c"):
        await rpc.result("task.submit", tasks=[{"id": task_id}])
    notice = rpc.notices.pop() if rpc.notices else await rpc.receive()
    assert notice["method"] == "event"
    event = notice["params"]["event"]
    assert (event["kind"], event["task_id"]) == ("task_submitted", "b")

    again = await rpc.result("subscribe", cursor=begun["cursor"], kinds=["task_submitted"])
    seen = [(await rpc.receive())["params"] for _ in range(3)]
    assert [one["event"]["task_id"] for one in seen] == ["a", "b", "c"]
    assert {one["subscription"] for one in seen} == {again["subscription"]}


async def test_a_connection_has_so_many_subscriptions_and_no_more(start_engine: Any) -> None:
    engine = await start_engine(gateway={"max_subscriptions": 2})
    async with talk(engine) as rpc:
        numbers = [(await rpc.result("subscribe"))["subscription"] for _ in range(2)]
        assert await rpc.code("subscribe") == "not_allowed"
        await rpc.result("unsubscribe", subscription=numbers[0])
        await rpc.result("subscribe")


async def test_a_consumer_that_takes_nothing_is_cut_off_and_goes_on_from_its_cursor(
    start_engine: Any,
) -> None:
    engine = await start_engine(gateway={"send_timeout": 0.3})
    note = "x" * 900
    async with engine.store.db.pool.acquire() as connection:
        await connection.execute(
            "insert into events (kind, data) select 'tick', json_build_object('n', n, 'note', $1::text)"
            " from generate_series(1, 12000) n",
            note,
        )
    got: list[int] = []
    cursor = "0:0"
    async with talk(engine, max_queue=1, ping_interval=None) as rpc:
        await rpc.result("subscribe", cursor=cursor, kinds=["tick"])
        conversations = engine._gateway.on_control.__self__.conversations
        async with asyncio.timeout(60):  # it reads nothing for longer than a frame may wait
            while conversations:
                await asyncio.sleep(0.02)
        with contextlib.suppress(ConnectionClosed):
            while True:
                event = (await rpc.receive())["params"]["event"]
                got.append(event["data"]["n"])
                cursor = event["cursor"]
    assert 0 < len(got) < 12_000
    async with talk(engine) as rpc:
        await rpc.result("subscribe", cursor=cursor, kinds=["tick"])
        while len(got) < 12_000:
            got.append((await rpc.receive())["params"]["event"]["data"]["n"])

    assert got == list(range(1, 12_001))


async def test_requests_beyond_the_limit_wait_their_turn(start_engine: Any) -> None:
    engine = await start_engine(gateway={"max_requests": 2})
    await engine.submit({"id": "open"})
    async with talk(engine) as rpc:
        for number in range(3):
            params = {"task_ids": ["open"], "timeout_seconds": 0.5}
            await rpc.send({"jsonrpc": "2.0", "id": number, "method": "task.wait", "params": params})
        began = asyncio.get_running_loop().time()
        answers = [(await rpc.receive())["id"] for _ in range(3)]
        took = asyncio.get_running_loop().time() - began
    assert sorted(answers) == [0, 1, 2] and answers[-1] == 2
    assert took > 0.9


async def test_frames_beyond_the_rate_are_read_later(start_engine: Any, fleet_of: Any) -> None:
    engine = await start_engine(gateway={"max_frames_per_second": 10})
    agent = await fleet_of(engine).join()
    began = asyncio.get_running_loop().time()
    for _ in range(25):
        await agent.send({"type": "nonsense"})
    for _ in range(25):
        await agent.expect("error")
    assert asyncio.get_running_loop().time() - began > 1.0
    async with talk(engine) as rpc:
        began = asyncio.get_running_loop().time()
        for _ in range(25):
            await rpc.result("hello")
    assert asyncio.get_running_loop().time() - began > 1.0


async def test_connections_beyond_the_limit_are_told_to_come_back(start_engine: Any) -> None:
    engine = await start_engine(gateway={"max_connections": 2})
    async with talk(engine), talk(engine):
        with pytest.raises(InvalidStatus) as refused:
            async with talk(engine):
                pass
    assert refused.value.response.status_code == 503


async def test_a_name_that_is_not_the_servers_is_refused(start_engine: Any) -> None:
    engine = await start_engine(gateway={"allowed_hosts": "fleet.example"})
    parts = urlsplit(engine.url)

    async def status(host: str) -> int:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return int(answer.split()[1])

    known = ["localhost", "127.0.0.1:3001", "[::1]:1", "fleet.example:443", "FLEET.example."]
    foreign = [
        "evil.example",
        "fleet.example.evil.example",
        "127.0.0.1.evil.example",
        "",
        "a b",
        "[",
        "x@localhost.evil",
    ]
    assert [await status(host) for host in known] == [200] * len(known)
    assert [await status(host) for host in foreign] == [403] * len(foreign)


async def test_a_large_submission_goes_through_and_lists_come_in_pages(
    start_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await start_engine(gateway={"max_message_bytes": 4096})
    tasks = [{"id": f"t{number}", "data": {"text": "x" * 500}} for number in range(500)]
    monkeypatch.setattr("agentorch_cli.gateway.control.PAGE_BYTES", 20_000)
    async with talk(engine) as rpc:
        assert len((await rpc.result("task.submit", tasks=tasks))["tasks"]) == 500
        whole = await rpc.result("task.list", limit=1000)
        await rpc.result("hello", pages=True)
        rest = await rpc.result("task.list", limit=1000)
    pages = [one["params"]["items"] for one in rpc.notices]
    assert len(pages) > 5
    assert [task for page in [*pages, rest] for task in page] == whole


@pytest.mark.parametrize(
    ("scopes", "is_taken"),
    [(["read"], False), (["vote", "agent:*"], False), (["submit"], True), (["admin"], True)],
)
async def test_who_may_not_submit_brings_no_large_requests(
    start_engine: Any, scopes: list[str], is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused as it comes in, before anything of it is decoded."""
    engine = await start_engine(gateway={"require_tokens": True})
    monkeypatch.setattr("agentorch_cli.gateway.control.LOOKER_BYTES", 200_000)
    token = await new_token(engine, *scopes)
    large = {"jsonrpc": "2.0", "id": 9, "method": "nothing", "params": {"x": "x" * 200_000}}

    async with talk(engine, token) as rpc:
        hello = await rpc.result("hello")
        await rpc.send(large)
        if is_taken:
            assert (await rpc.receive())["error"]["data"]["code"] == "not_found"
        else:
            assert await rpc.closed() == 1009

    assert hello["max_bytes"] == (134_217_728 if is_taken else 200_000)


async def test_a_browser_brings_no_large_requests_whatever_its_token_allows(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentorch_cli.gateway.control.LOOKER_BYTES", 200_000)
    host = orchestrator.url.removeprefix("ws://").removesuffix("/agents")

    async with talk(orchestrator, origin=f"http://{host}") as rpc:
        await rpc.send('{"jsonrpc": "2.0", "id": 1, "method": "' + "x" * 200_000 + '"}')

        assert await rpc.closed() == 1009


ODD: list[Any] = [None, True, 2**64 - 1, "nan", [], [None], [{}], {"": 1}, [{"context": 1}]]


async def test_a_parameter_may_be_anything_and_the_server_says_what_it_is_not(rpc: Rpc) -> None:
    """No answer tells of a bug, and the log holds no traceback (see conftest)."""
    task_id = (await rpc.result("task.submit", tasks=[{"type": "x"}]))["tasks"][0]["task_id"]
    whole = {"task_id": task_id, "task_ids": [task_id], "tasks": [{"type": "x"}], "cron": "* * * * *"}

    for method in ACCESS:
        known = operation(method)
        assert known is not None
        for name, value in itertools.product(known.parameters, ODD):
            wanted = {one: whole.get(one, "x") for one in known.required} | {name: value}
            if method == "task.wait":
                wanted = {"timeout_seconds": 0} | wanted
                if wanted["timeout_seconds"] not in (0, -1, "nan", "x"):
                    continue  # a wait that is in order
            answer = await rpc.ask(method, **wanted)
            assert answer.get("error", {}).get("code") != -32603, (method, name, value)
