"""The web page as a person meets it: a real engine, real sockets, and a real browser without a window."""

from __future__ import annotations

import asyncio
import contextlib
import json
import unicodedata
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from chromium import PATIENCE, PROGRAM, Chromium, Page

from agentorch_cli import Agent, Work
from agentorch_cli.cli.ui import page_address
from agentorch_cli.core.model import TaskStatus
from agentorch_cli.text import visible
from agentorch_cli.wiring import Orchestrator

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="there is no browser: install Chromium (apt-get install chromium)"
)

EVIL = (
    '"><img src=x onerror="pwned=1"><script>pwned=1</script><svg onload=pwned=1> javascript:pwned=1'
    " ${pwned=1} \u202etxt.exe\u200b\U000e0041 [/bold] </textarea> " + "W" * 60
)
"""What a name may hold; texts may hold control characters besides."""

WORSE = EVIL + "\x07\x1b]52;c;aGk=\x07\x9b31m\r\n<!--"

STRANGE = "main :is(img, script, iframe, object, embed, style, link, foreignObject, [onload], [onerror])"

VIEWS = (
    "",
    "tasks",
    "votes",
    "deadlocks",
    "events",
    "budgets",
    "tasks?status=running",
    "nothing",
    "task/nothing",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    browser = Chromium()
    yield browser
    browser.close()


@pytest.fixture
async def page(chromium: Chromium) -> AsyncIterator[Page]:
    async with chromium.page() as page:
        yield page


class Crew:
    """Agents that finish their work when they are told to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        self.finish = asyncio.Event()
        self.result: Any = "done"

    def join(self, agent_id: str, *capabilities: str, note: str = "half of it") -> None:
        agent = Agent(agent_id, capabilities=capabilities or ("work",), slots=4)

        @agent.handler()
        async def work(work: Work) -> Any:
            work.progress(0.5, note)
            await self.finish.wait()
            return self.result

        self._running.append(asyncio.create_task(agent.run(self._url, stop=self._stop, drain_timeout=0)))

    async def leave(self) -> None:
        self.finish.set()
        self._stop.set()
        await asyncio.gather(*self._running, return_exceptions=True)


@pytest.fixture
async def crew(orchestrator: Orchestrator) -> AsyncIterator[Crew]:
    crew = Crew(orchestrator.url)
    yield crew
    await crew.leave()


def address(orchestrator: Orchestrator, view: str = "") -> str:
    return f"{page_address(orchestrator.url)}#/{view}"


async def test_the_fleet_appears_and_a_task_completes_before_ones_eyes(
    orchestrator: Orchestrator, crew: Crew, page: Page
) -> None:
    await page.goto(address(orchestrator))
    await page.until_shown("No agents yet")

    crew.join("anna")
    await page.until_shown("anna")
    task_id = (await orchestrator.submit({"name": "hamlet", "required_capabilities": ["work"]})).task_id
    await page.until("document.querySelector('.queue a[href$=running] b').textContent === '1'")
    await page.until("document.querySelector('[role=progressbar]')?.getAttribute('aria-valuenow') === '50'")
    await page.until_shown("half of it")
    crew.finish.set()
    await page.until("document.querySelector('.queue a[href$=completed] b').textContent === '1'")

    await page.click(f"a[href$='{task_id}']")
    await page.until("document.querySelector('h1').textContent === 'hamlet'")
    for words in ("completed by anna", "given to anna", "done"):
        await page.until_shown(words)
    assert page.complaints == []


async def test_what_agents_write_does_not_run_and_does_not_distort(
    orchestrator: Orchestrator, crew: Crew, page: Page
) -> None:
    agent_id, crew.result = EVIL[:180].replace("\x07", ""), {EVIL: EVIL}
    crew.join(agent_id, EVIL[:100], "work", note=EVIL)
    task = {
        "id": EVIL[:190].replace("\x07", "-"),
        "name": EVIL[:150],
        "type": EVIL[:90],
        "data": {EVIL: EVIL},
    }
    handle = await orchestrator.submit(task | {"required_capabilities": ["work"], "labels": {"a": EVIL[:90]}})
    await orchestrator.submit({"name": EVIL[:90], "required_capabilities": [EVIL[20:90]]})
    voters = [agent_id, "ben"]
    opened = await orchestrator.call(
        "consensus.open", topic=EVIL[:200], question={WORSE: WORSE}, voters=voters
    )
    task_id = quote(handle.task_id, safe="")
    one_by_one = f"task/{task_id}", f"agent/{quote(agent_id, safe='')}", f"vote/{opened.decision_id}"
    shown = ("", "tasks", "events", "votes", *one_by_one)
    for is_ended, width in ((False, 360), (True, 1600)):
        if is_ended:
            crew.finish.set()
            await handle.wait(timeout=PATIENCE)
        await page.resize(width)
        for view in shown:
            await page.goto(address(orchestrator, view))
            await page.until("document.getElementById('main').innerText.includes('<img src=x')")
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (view, width)
            assert await page.evaluate(f"document.querySelectorAll({json.dumps(STRANGE)}).length") == 0
            assert await page.evaluate(
                "[...document.links].every((one) => one.getAttribute('href').startsWith('#'))"
            )
            text = await page.evaluate("document.body.textContent")
            assert "\u202e" not in text and "\u200b" not in text and "\U000e0041" not in text
            assert "\\u{202e}" in text
    assert not await page.evaluate("'pwned' in window")
    assert page.complaints == []


async def test_a_graph_and_a_timeline_are_drawn_and_lead_to_their_tasks(
    orchestrator: Orchestrator, crew: Crew, page: Page
) -> None:
    crew.join("anna")
    need = {"required_capabilities": ["work"]}
    first, *_, last = await orchestrator.submit_all(
        [
            {"name": "fetch", **need},
            {"name": "read", "depends_on": ["fetch"], **need},
            {"name": "count", "depends_on": ["fetch"], **need},
            {"name": "report", "depends_on": ["read", "count"], **need},
        ]
    )

    await page.goto(address(orchestrator, f"task/{last.task_id}"))
    await page.until("document.querySelectorAll('.picture .node').length === 4")
    assert await page.evaluate("document.querySelectorAll('.picture .node.blocked').length") == 3
    assert await page.evaluate("document.querySelectorAll('.picture path.edge').length") == 4
    box = "getComputedStyle(document.querySelector('.picture .node .box')).fill"
    assert await page.evaluate(box) != "rgb(0, 0, 0)"  # the style sheet of the pictures is in force
    await page.until("document.querySelectorAll('[aria-label=Timeline] .wait').length > 0")
    await page.until_shown("Why it waits")

    crew.finish.set()
    await page.until("document.querySelectorAll('.picture .node.completed').length === 4")
    await page.until("document.querySelectorAll('[aria-label=Timeline] .bar').length === 4")
    for name, shape in (("Graph", "rect"), ("Timeline", "text")):
        await page.goto(address(orchestrator, f"task/{last.task_id}"))
        await page.until("document.querySelector('h1')?.textContent === 'report'")
        await page.click(f"[aria-label={name}] a[href$='{first.task_id}'] {shape}")
        await page.until("document.querySelector('h1')?.textContent === 'fetch'")
    assert page.complaints == []


async def test_every_view_fits_and_asks_nobody_else(
    orchestrator: Orchestrator, crew: Crew, page: Page
) -> None:
    crew.join("anna")
    for scheme in ("light", "dark"):
        for width in (360, 1600):
            await page.resize(width, scheme=scheme)
            for view in VIEWS:
                await page.goto(address(orchestrator, view))
                await page.until("document.querySelector('main[aria-busy=false] h1')")
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                    view,
                    width,
                )
        paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(paper[4:].split(",")[0]) > 128) == (scheme == "light")

    assert {urlsplit(url).netloc for url in page.requests} == {urlsplit(orchestrator.url).netloc}
    assert {urlsplit(url).scheme for url in page.requests} == {"http", "ws"}
    assert page.complaints == []


async def test_a_keyboard_is_enough_and_a_redraw_takes_nothing_away(
    orchestrator: Orchestrator, crew: Crew, page: Page
) -> None:
    await page.goto(address(orchestrator))
    await page.until_shown("No agents yet")
    await page.evaluate("document.querySelector('.brand').focus()")
    await page.press("Tab")
    await page.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Tasks"
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    await page.press("Enter")
    await page.until("location.hash === '#/tasks' && document.activeElement.id === 'main'")
    await page.until("document.querySelector('input[name=Name]')")
    await page.evaluate("document.querySelector('input[name=Name]').focus()")
    await page.type("ham")
    crew.join("anna")
    await orchestrator.submit({"name": "hamlet", "required_capabilities": ["work"]})
    await orchestrator.submit({"name": "othello", "required_capabilities": ["work"]})
    await page.until_shown("othello")  # drawn anew meanwhile
    assert await page.evaluate("document.activeElement.value") == "ham"
    await page.press("Enter")
    await page.until("!document.body.innerText.includes('othello')")

    await page.until_shown("hamlet")
    assert await page.evaluate("location.hash") == "#/tasks?name=ham"


async def test_a_hidden_page_asks_nothing(orchestrator: Orchestrator, crew: Crew, page: Page) -> None:
    pulse = orchestrator._gateway.on_control.__self__.pulse  # type: ignore[union-attr]
    await page.goto(address(orchestrator))
    await page.until_shown("No agents yet")
    await _until(lambda: pulse._followers == 1)

    await page.evaluate(
        "Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    await _until(lambda: pulse._followers == 0)
    sent = page.sent
    crew.join("anna")
    handle = await orchestrator.submit({"required_capabilities": ["work"]})
    crew.finish.set()
    await handle.wait(timeout=PATIENCE)

    assert page.sent == sent
    assert not await page.evaluate("document.body.innerText.includes('anna')")
    await page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    await page.until_shown("anna")


async def _until(is_so: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_a_page_that_is_cut_off_says_so_and_goes_on(start_engine: Any, page: Page) -> None:
    engine = await start_engine()
    port = urlsplit(engine.url).port
    await page.goto(address(engine))
    await page.until_shown("No agents yet")
    await page.until_shown("live")

    await engine.stop()
    await page.until_shown("Disconnected for")
    await page.until_shown("what is shown is")
    assert await page.evaluate("document.body.innerText.includes('No agents yet')")
    assert not await page.evaluate("document.querySelector('.connection').innerText.includes('live')")
    again = await start_engine(gateway={"port": port})
    await again.submit({"name": "hamlet"})

    await page.until("document.querySelector('.connection').innerText.includes('live')")
    await page.until("document.querySelector('.queue a[href$=pending] b').textContent === '1'")
    assert not await page.evaluate("document.body.innerText.includes('Disconnected')")


async def test_where_tokens_are_wanted_one_is_asked_for_and_goes_into_no_address(
    start_engine: Any, page: Page
) -> None:
    engine = await start_engine(gateway={"require_tokens": True})
    made = await engine.call("token.create", name="ada", scopes=("read",))
    other = await engine.call("token.create", name="ben", scopes=("submit",))
    await page.goto(address(engine, "tasks"))
    await page.until_shown("This server wants a token")

    for token, told in (("ao_guessed", "this is no token"), (other.token, "it has no scope read")):
        await page.evaluate("document.querySelector('input[name=token]').focus()")
        await page.type(token)
        await page.press("Enter")
        await page.until_shown(told)
    await page.evaluate("document.querySelector('input[name=token]').focus()")
    await page.type(made.token)
    await page.press("Enter")
    await page.until_shown("There are no such tasks")
    await page.until_shown("as ada")

    secret = made.token.split("_")[2]
    assert not [url for url in page.requests if secret in url]
    assert secret not in await page.evaluate("location.href + document.cookie + JSON.stringify(localStorage)")
    assert secret not in await page.evaluate("document.documentElement.outerHTML")
    assert await page.evaluate("sessionStorage.length") == 1
    await page.ask("Page.reload")
    await page.until_shown("as ada")  # it is kept in this tab

    await engine.call("token.revoke", names=["ada"])
    await page.until_shown("was revoked")
    assert await page.evaluate("sessionStorage.length") == 0


async def test_the_page_works_below_a_path_of_a_proxy(orchestrator: Orchestrator, page: Page) -> None:
    """The proxy takes `/fleet` off the path, and passes everything else on."""
    port = urlsplit(orchestrator.url).port

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        back.write((await reader.readline()).replace(b" /fleet/", b" /", 1))
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    async with server:
        await page.goto(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/fleet/ui/#/")
        await page.until_shown("No agents yet")
        assert (await page.evaluate("location.pathname")) == "/fleet/ui"
        await page.shut()
    assert page.complaints == []


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


FOREIGN = """<!doctype html><title>elsewhere</title><body><script>
const told = {};
const note = (name) => (what) => { told[name] = String(what?.message ?? what); };
const base = "http://BASE";
window.asked = Promise.all([
  ...["/ui", "/ui/app.js", "/healthz", "/metrics"].map((path) =>
    fetch(base + path).then((answer) => answer.text()).then(note(path), () => note(path)("refused"))),
  import(base + "/ui/look.js").then(note("module"), () => note("module")("refused")),
  ...["/control", "/agents"].map((path) => new Promise((done) => {
    const socket = new WebSocket(base.replace("http", "ws") + path);
    socket.onopen = () => { note(path)("open"); done(); };
    socket.onclose = () => { told[path] ??= "refused"; done(); };
  })),
  new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.src = base + "/ui";
    frame.onload = () => {
      told.frame = frame.contentDocument === null ? "refused" : "readable";
      done();
    };
    document.body.append(frame);
  }),
]).then(() => told);
</script>"""


async def test_a_page_of_another_site_learns_nothing(orchestrator: Orchestrator, page: Page) -> None:
    body = FOREIGN.replace("BASE", urlsplit(orchestrator.url).netloc).encode()
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # browsers connect in advance
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        await page.goto(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await page.until("window.asked !== undefined")
        told = await page.evaluate("window.asked")
    for connection in connections:
        connection.close()
        with contextlib.suppress(ConnectionError):
            await connection.wait_closed()

    assert set(told.values()) == {"refused"}, told
    assert set(told) == {
        "/ui",
        "/ui/app.js",
        "/healthz",
        "/metrics",
        "module",
        "/control",
        "/agents",
        "frame",
    }
    assert [one for one in page.complaints if "frame-ancestors" in one or "X-Frame-Options" in one]


async def test_a_name_that_was_made_to_point_here_shows_nothing(
    orchestrator: Orchestrator, page: Page
) -> None:
    """The browser takes `rebound.example` for this machine, as after a change of its address."""
    await page.goto(f"http://rebound.example:{urlsplit(orchestrator.url).port}/ui")

    await page.until_shown("this server does not go by that name")
    assert await page.evaluate("document.scripts.length") == 0


async def test_letters_that_hide_are_shown_as_in_the_terminal(orchestrator: Orchestrator, page: Page) -> None:
    """Every letter but those of Han, and those that only one of the two programs knows yet."""
    await page.goto(address(orchestrator))
    await page.until_shown("No agents yet")
    changed = await page.evaluate(
        "import('/ui/tree.js').then(({visible}) => { const found = [[], []];"
        " for (let point = 0; point < 0x110000; point += point === 0x1ffff ? 0xc0001 : 1) {"
        "   const letter = String.fromCodePoint(point);"
        "   if (/\\p{Cn}/u.test(letter)) found[1].push(point);"
        "   else if (visible(letter) !== letter) found[0].push(point);"
        "   if (point === 0xe0fff) break; } return found; })"
    )
    ours = {
        point for point in (*range(0x20000), *range(0xE0000, 0xE1000))
        if unicodedata.category(chr(point)) != "Cn" and visible(chr(point)) != chr(point)
    }  # fmt: skip
    unknown = set(changed[1])
    theirs = {point for point in changed[0] if unicodedata.category(chr(point)) != "Cn"}

    assert theirs == ours - unknown
    texts = ["a\r\nb", "\x1b[31m\u202e", "\U000e0041é", "x" * 25_000, "line\nline"]
    assert await page.evaluate(
        f"import('/ui/tree.js').then(({{visible}}) => {json.dumps(texts)}.map(visible))"
    ) == [visible(text) for text in texts]


def test_the_page_knows_every_state_of_a_task() -> None:
    from agentorch_cli.signs import STYLES

    assert {str(one) for one in TaskStatus} <= STYLES.keys()
