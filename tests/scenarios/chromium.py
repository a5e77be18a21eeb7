"""A real browser without a window, driven over its own protocol (DevTools) on a WebSocket.

Nothing of it is faked: it loads, runs and draws the page as a person's would, and tells of every
request that it makes, every complaint in its console, and every rule of the page's that was broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

from websockets.asyncio.client import ClientConnection, connect

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

PATIENCE = 60.0
"""Seconds in which something has to come true."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP rebound.example 127.0.0.1",
)


class Chromium:
    """The process; pages come and go."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="agentorch-chromium-")
        assert PROGRAM is not None
        self.process = subprocess.Popen(
            [PROGRAM, *FLAGS, f"--user-data-dir={self.folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = Path(self.folder, "DevToolsActivePort")
        end = time.monotonic() + 60
        while not (port.exists() and len(port.read_text().splitlines()) == 2):
            assert self.process.poll() is None, "the browser ended"
            assert time.monotonic() < end, "the browser does not come up"
            time.sleep(0.02)
        self.port = int(port.read_text().splitlines()[0])

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def page(self, width: int = 1280, height: int = 900) -> AsyncIterator[Page]:
        """A page in a profile of its own."""
        with await asyncio.to_thread(urlopen, f"http://127.0.0.1:{self.port}/json/version") as answer:
            url = json.load(answer)["webSocketDebuggerUrl"]
        async with connect(url, max_size=None, compression=None) as connection:
            page = Page(connection)
            reading = asyncio.create_task(page.read())
            try:
                yield await page.open(width, height)
            finally:
                with contextlib.suppress(TimeoutError):
                    await page.shut()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


class Page:
    """One page."""

    def __init__(self, connection: ClientConnection) -> None:
        self.requests: list[str] = []
        """Every address that it asked for, WebSockets too."""
        self.complaints: list[str] = []
        """Errors in its console, scripts that failed, rules that were broken."""
        self.sent = 0
        """Frames that it sent."""
        self._connection = connection
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._session: str | None = None
        self._context = ""

    async def open(self, width: int, height: int) -> Self:
        self._context = (await self.ask("Target.createBrowserContext"))["browserContextId"]
        made = await self.ask("Target.createTarget", url="about:blank", browserContextId=self._context)
        attached = await self.ask("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.ask(f"{domain}.enable")
        await self.ask("Emulation.setFocusEmulationEnabled", enabled=True)
        await self.resize(width, height)
        return self

    async def shut(self) -> None:
        context, self._context, self._session = self._context, "", None
        if context:
            await self.ask("Target.disposeBrowserContext", browserContextId=context)

    async def resize(self, width: int, height: int = 900, *, scheme: str = "light") -> None:
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.ask("Emulation.setEmulatedMedia", features=features)

    async def read(self) -> None:
        async for raw in self._connection:
            message = json.loads(raw)
            if message.get("id") in self._waiting:
                self._waiting.pop(message["id"]).set_result(message)
            else:
                self._hear(message.get("method", ""), message.get("params", {}))

    def _hear(self, method: str, told: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(told["url"])
            case "Network.webSocketFrameSent":
                self.sent += told["response"]["opcode"] == 1
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = answer
        request = {"id": self._number, "method": method, "params": params}
        await self._connection.send(
            json.dumps(request | ({"sessionId": self._session} if self._session else {}))
        )
        async with asyncio.timeout(PATIENCE):
            told = await answer
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    # --- what a person does -----------------------------------------------------------------

    async def goto(self, url: str) -> None:
        """Type an address; where only the part behind `#` is another, the page has heard of it."""
        here, _, view = url.partition("#")
        before = await self.evaluate("location.href")
        if before.partition("#")[0] == here and before != url:
            change = (
                f"addEventListener('hashchange', () => setTimeout(done)); location.hash = {json.dumps(view)}"
            )
            await self.evaluate(f"new Promise((done) => {{ {change} }})")
        elif before != url:
            await self.ask("Page.navigate", url=url)

    async def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        told = await self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression is true in the page."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while True:
            with contextlib.suppress(AssertionError):  # the page may be on its way to another
                if await self.evaluate(f"!!({script})"):
                    return
            if asyncio.get_running_loop().time() > end:
                shown = await self.evaluate("document.body?.innerText")
                raise AssertionError(f"{script} does not come true; complaints: {self.complaints}; {shown}")
            await asyncio.sleep(0.03)

    async def until_shown(self, text: str) -> None:
        await self.until(f"document.body.innerText.includes({json.dumps(text)})")

    async def press(self, key: str) -> None:
        """A key, as the keyboard sends it."""
        code = {"Enter": 13, "Tab": 9}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.ask("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    async def type(self, text: str) -> None:
        await self.ask("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """The middle of the first element."""
        one = f"document.querySelector({json.dumps(selector)})"
        await self.until(one)
        await self.evaluate(f"{one}.scrollIntoView({{block: 'center', inline: 'center'}})")
        box = await self.evaluate(f"{one}.getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            await self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
