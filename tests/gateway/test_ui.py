"""The web page before any browser: what is served to whom, and what a browser may ask."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from test_control import Rpc, new_token, talk
from test_door import exchange
from websockets.exceptions import InvalidStatus

import agentorch_cli
from agentorch_cli import Agent
from agentorch_cli.cli.story import ENDS, JUDGES, MOVES, WORDS
from agentorch_cli.cli.ui import page_address
from agentorch_cli.gateway.control import Control
from agentorch_cli.gateway.page import page_files
from agentorch_cli.handlers.access import ACCESS
from agentorch_cli.signs import STYLES
from agentorch_cli.wiring import Orchestrator

FOLDER = Path(agentorch_cli.__file__).parent / "gateway" / "ui"


async def get(url: str, path: str, *lines: str, host: str = "localhost") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a plain request."""
    head = "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *lines])
    answer, _, body = (await exchange(url, f"{head}\r\n\r\n".encode())).partition(b"\r\n\r\n")
    first, *rest = answer.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in rest)
    return int(first.split()[1]), {name.lower(): value for name, value in headers.items()}, body


def control_of(orchestrator: Orchestrator) -> Control:
    control: Control = orchestrator._gateway.on_control.__self__  # type: ignore[union-attr]
    return control


def own_page(orchestrator: Orchestrator) -> dict[str, str]:
    """The header that a browser sends from the server's own page."""
    return {"origin": f"http://{urlsplit(orchestrator.url).netloc}"}


# --- what is served -----------------------------------------------------------------------------


async def test_every_part_of_the_page_comes_with_headers_that_keep_it_harmless(
    orchestrator: Orchestrator,
) -> None:
    assert {"/ui", "/ui/app.js", "/ui/style.css", "/ui/picture.css", "/ui/icon.svg"} <= page_files().keys()
    for path in page_files():
        status, headers, body = await get(orchestrator.url, path)
        harmless(status, headers, body)


def harmless(status: int, headers: dict[str, str], body: bytes) -> None:
    assert status == 200
    assert int(headers["content-length"]) == len(body) > 0
    rules = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert rules == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == headers["cross-origin-opener-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control-")]
    assert headers["content-type"].split(";")[0] in (
        "text/html", "text/css", "text/javascript", "image/svg+xml"
    )  # fmt: skip


async def test_what_the_browser_has_is_not_sent_again(orchestrator: Orchestrator) -> None:
    _, headers, _ = await get(orchestrator.url, "/ui/app.js")

    status, again, body = await get(
        orchestrator.url, "/ui/app.js", f'If-None-Match: "x", W/{headers["etag"]}'
    )
    other, _, whole = await get(orchestrator.url, "/ui/app.js", 'If-None-Match: "x"')

    assert (status, body, again["etag"]) == (304, b"", headers["etag"])
    assert "content-security-policy" in again and "content-length" not in again
    assert other == 200 and whole


async def test_a_slash_too_many_leads_to_the_page(orchestrator: Orchestrator) -> None:
    status, headers, _ = await get(orchestrator.url, "/ui/")

    assert (status, headers["location"]) == (308, "../ui")


NOWHERE = (
    "/ui/../server.py", "/ui/..", "/ui/../gateway/page.py", "/ui/%2e%2e/server.py", "/ui/..%2fserver.py",
    "/ui/....//server.py", "/ui//app.js", "/ui/./app.js", "/ui/app.js/", "/ui/app.js%00", "/ui/app.js.",
    "/ui/index.html", "/ui/APP.JS", "/ui/__init__.py", "/uix", "/UI", "//ui", "/ui\\app.js", "/ui/C:\\x",
    "/ui//etc/passwd", "/ui/nothing.js", "http://localhost/ui",
)  # fmt: skip


async def test_a_path_leads_to_a_part_of_the_page_or_nowhere(orchestrator: Orchestrator) -> None:
    for path in NOWHERE:
        status, _, body = await get(orchestrator.url, path)

        assert status == 404, path
        assert b"import" not in body and b"root:" not in body


async def test_the_page_is_not_served_under_a_name_that_was_made_to_point_here(
    orchestrator: Orchestrator,
) -> None:
    for host in ("evil.example", "evil.example:3001", "localhost.evil.example", "x", ""):
        for path in ("/ui", "/ui/", "/ui/app.js", "/ui/nothing"):
            status, _, body = await get(orchestrator.url, path, host=host)

            assert status == 403, host
            assert b"<" not in body


def test_the_page_names_no_other_place_and_holds_no_script_in_its_markup() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text()
        places = set(re.findall(r"[a-z]+://[^\s\"'`]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not places, f"{path.name}: {places}"
        assert not re.search(
            r"url\(|@import|innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", text
        )
    markup = (FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|style=", markup)


def test_the_signs_and_words_of_the_page_are_those_of_the_terminal() -> None:
    look, tasks = (FOLDER / "look.js").read_text(), (FOLDER / "tasks.js").read_text()

    def table(text: str, name: str) -> Any:
        found = re.search(rf"const {name} = (\{{.*?\}});", text, re.DOTALL)
        assert found is not None
        return json.loads(re.sub(r",(\s*[}\]])", r"\1", found[1]))

    plain = {state: [sign, colour or "plain"] for state, (sign, _, colour) in STYLES.items()}
    assert table(look, "SIGNS") == plain
    assert table(look, "WORDS") == WORDS
    assert table(tasks, "MOVES") == MOVES
    assert table(tasks, "ENDS") == ENDS | JUDGES


def test_the_address_of_the_page_is_that_of_the_server() -> None:
    assert page_address("ws://127.0.0.1:3001/agents") == "http://127.0.0.1:3001/ui"
    assert page_address("wss://fleet.example.com") == "https://fleet.example.com/ui"
    assert page_address("wss://example.com/fleet/control") == "https://example.com/fleet/ui"


# --- who may look, and only look ------------------------------------------------------------------


async def test_a_browser_may_only_read_whatever_its_token_allows(orchestrator: Orchestrator) -> None:
    admin = await new_token(orchestrator, "admin", "agent:*")

    for token in (None, admin):
        async with talk(orchestrator, token, **own_page(orchestrator)) as rpc:
            assert (await rpc.result("hello"))["scopes"] == ["read"]
            for method, access in ACCESS.items():
                if access.scope != "read":
                    assert await rpc.code(method) == "not_allowed", method
            assert (await rpc.result("status.get"))["agents"] == []


async def test_a_program_that_is_no_browser_may_do_what_its_token_allows(orchestrator: Orchestrator) -> None:
    async with talk(orchestrator) as rpc:
        assert (await rpc.result("hello"))["scopes"] == ["admin"]


async def test_pages_of_other_sites_may_not_ask(orchestrator: Orchestrator) -> None:
    port = urlsplit(orchestrator.url).port
    for origin in (
        "http://evil.example",
        f"http://evil.example:{port}",
        f"http://localhost:{port}",  # the request is for 127.0.0.1
        f"http://127.0.0.1:{int(port or 0) + 1}",
        "null",
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with talk(orchestrator, origin=origin):
                pass
        assert refused.value.response.status_code == 403, origin


async def test_a_name_of_the_servers_own_is_no_other_site(start_engine: Any) -> None:
    engine = await start_engine(gateway={"allowed_hosts": "fleet.example"})
    port = urlsplit(engine.url).port
    asked = (
        f"GET /control HTTP/1.1\r\nHost: fleet.example:{port}\r\nOrigin: http://%s:{port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )

    assert (await get(engine.url, "/ui", host=f"fleet.example:{port}"))[0] == 200
    for name, status in (("fleet.example", b"101"), ("evil.example", b"403")):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((asked % name).encode())
        assert (await reader.readline()).split()[1] == status, name
        writer.close()


async def test_beyond_loopback_the_page_shows_nothing_without_a_token(start_engine: Any) -> None:
    """`require_tokens` is what holds beyond loopback."""
    engine = await start_engine(gateway={"require_tokens": True})
    reader = await new_token(engine, "read", name="ada")
    worker = await new_token(engine, "submit", "agent:ben", name="ben")
    page = own_page(engine)

    for token in ("", "ao_guessed", None):
        async with talk(engine, **page) as rpc:
            await rpc.send({"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"token": token}})
            assert (await rpc.receive())["error"]["data"]["code"] == "unauthorized"
            assert await rpc.closed() == 1008
    async with talk(engine, **page) as rpc:
        hello = await rpc.result("hello", token=reader)
        assert (hello["name"], hello["scopes"]) == ("ada", ["read"])
        assert (await rpc.result("status.get"))["alarms"] == []
    async with talk(engine, **page) as rpc:
        assert (await rpc.result("hello", token=worker))["scopes"] == []
        assert await rpc.code("status.get") == "not_allowed"
        assert await rpc.code("subscribe", hints=True) == "not_allowed"
        assert await rpc.code("picture", of="task.graph", task_id="x") == "not_allowed"


# --- what looking costs -----------------------------------------------------------------------------


async def collected(rpc: Rpc, until: asyncio.Event) -> list[dict[str, Any]]:
    """Everything that comes until the event and a last question after it."""
    asked = asyncio.create_task(until.wait())
    heard: list[dict[str, Any]] = []
    while True:
        told = asyncio.create_task(rpc.receive())
        await asyncio.wait({asked, told}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done() and not told.done():
            told.cancel()
            await asyncio.gather(told, return_exceptions=True)
            return heard
        heard.append(await told)


async def test_a_storm_of_events_is_a_few_words_to_an_open_page(orchestrator: Orchestrator) -> None:
    """However much happens, the page is told that it did: one short frame for each look at the log."""
    agent, stop = Agent("anna", capabilities=["work"], slots=100), asyncio.Event()
    agent.handler()(lambda work: work.data)
    working = asyncio.create_task(agent.run(orchestrator.url, stop=stop))
    control, over = control_of(orchestrator), asyncio.Event()
    async with talk(orchestrator, **own_page(orchestrator)) as rpc:
        subscription = (await rpc.result("subscribe", hints=True))["subscription"]
        hearing = asyncio.create_task(collected(rpc, over))
        looks = 0
        look = control.pulse._db.fetch_one

        async def counted(name: str, *arguments: Any) -> Any:
            nonlocal looks
            looks += name == "newest_event"
            return await look(name, *arguments)

        control.pulse._db.fetch_one = counted  # type: ignore[method-assign]
        handles = await orchestrator.submit_all(
            [{"required_capabilities": ["work"], "data": number} for number in range(300)]
        )
        await asyncio.gather(*(handle.wait(timeout=20) for handle in handles))
        events = await orchestrator.call("event.list", limit=10_000)
        while looks < 2:
            await asyncio.sleep(0.01)
        over.set()
        heard = await hearing
        stop.set()
        await working

        assert len(events) >= 900
        assert 1 <= len(heard) <= looks + 2
        assert all(one["method"] == "moved" for one in heard)
        assert all(one["params"] == {"subscription": subscription} for one in heard)


async def test_nobody_looks_at_the_log_while_no_page_wants_to_know(orchestrator: Orchestrator) -> None:
    pulse = control_of(orchestrator).pulse
    async with talk(orchestrator, **own_page(orchestrator)) as rpc:
        assert pulse._looking is None
        subscription = (await rpc.result("subscribe", hints=True))["subscription"]
        while pulse._looking is None:
            await asyncio.sleep(0.005)

        await rpc.result("unsubscribe", subscription=subscription)

        while pulse._looking is not None:
            await asyncio.sleep(0.005)


async def test_hints_are_about_everything_from_now_on(orchestrator: Orchestrator) -> None:
    async with talk(orchestrator) as rpc:
        for wrong in ({"taskId": "x"}, {"kinds": ["task_failed"]}, {"agentId": "x"}, {"cursor": "1:1"}):
            assert await rpc.code("subscribe", hints=True, **wrong) == "usage"


async def test_the_questions_of_pages_are_shared_and_those_of_programs_are_not(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[str] = []
    read_once = Control.read_once

    async def noted(self: Control, method: str, given: Any, read: Any) -> Any:
        shared.append(method)
        return await read_once(self, method, given, read)

    monkeypatch.setattr(Control, "read_once", noted)
    async with talk(orchestrator) as program, talk(orchestrator, **own_page(orchestrator)) as page:
        await program.result("status.get", limit=1)
        assert shared == []
        await page.result("status.get", limit=1)
        assert shared == ["status.get"]


async def test_pages_that_ask_the_same_at_the_same_time_get_one_answer(orchestrator: Orchestrator) -> None:
    control, go, asked = control_of(orchestrator), asyncio.Event(), 0

    async def read() -> int:
        nonlocal asked
        asked += 1
        await go.wait()
        if asked == 2:
            raise ValueError
        return asked

    both = [asyncio.create_task(control.read_once("a", {"x": [1]}, read)) for _ in range(5)]
    await asyncio.sleep(0)
    both[0].cancel()  # who asked first may go
    go.set()
    answers = await asyncio.gather(*both[1:])

    assert (asked, answers) == (1, [1, 1, 1, 1])
    with pytest.raises(ValueError):
        await control.read_once("a", {"x": [1]}, read)
    assert await control.read_once("a", {"x": [1]}, read) == 3
    assert not control._reads
