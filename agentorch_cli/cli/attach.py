"""`agentorch agent attach`: a person's place in the fleet, in a terminal.

One loop: show what is asked, take a line, and do what it says. While somebody types, work may
be taken back or the connection may be lost; the line gives way to the news and stands below it
again. Without a terminal the same goes line by line, so that it can be scripted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from ssl import SSLContext
from typing import Any

from agentorch_cli.agents.agent import Agent
from agentorch_cli.agents.line import LineState
from agentorch_cli.agents.person import Ask, Person
from agentorch_cli.agents.worker import Stop, stopping_on_signals
from agentorch_cli.cli import asked
from agentorch_cli.cli.answers import Misfit, Reply
from agentorch_cli.cli.keyboard import Ended, Interrupted, Keyboard, keyboard
from agentorch_cli.cli.session import json_text, write
from agentorch_cli.cli.tables import Page
from agentorch_cli.text import one_line, shorten, visible

LEAVE_SECONDS = 10.0
"""For answers to be confirmed when the person leaves."""

SOON_SECONDS = 60.0
"""So long before its time is over, an ask says so."""

MOST_EDITED = 1_000_000
"""Characters that are read from an editor's file."""


async def attend(
    agent: Agent, url: str, token: str | None, *, tls: SSLContext | None = None, as_json: bool = False
) -> int:
    """Be there until the person leaves; the exit code. Raises Unauthorized or NotAllowed.

    `as_json`: what is asked is printed as one line of JSON each, for a program.
    """
    with keyboard() as keys:
        sitting = Sitting(Person(agent), keys, url, as_json=as_json)
        with _told_by(sitting.say):
            return await sitting.run(url, token, tls)


class Sitting:
    """One person at one keyboard."""

    def __init__(self, person: Person, keys: Keyboard, url: str, *, as_json: bool = False) -> None:
        self.person = person
        self._keys = keys
        self._url = url
        self._as_json = as_json
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._state = ""
        self._shown: Ask | None = None
        self._replies: dict[Ask, Reply] = {}
        self._typed: dict[Ask | None, str] = {}
        """What stood in the line of an ask when another came first."""
        self._warned: set[Ask] = set()
        self._was_here = False
        self._others = 0
        self._ahead: str | None = None
        """A line of a program that came before there was anything to answer."""
        self._interrupts = 0
        self._code = 0
        person.on_change = self._changed.set

    # --- what is said -----------------------------------------------------------------------

    def say(self, sentence: str, style: str = "dim") -> None:
        """Tell the person something, whatever they are doing."""
        self._keys.tell(shorten(sentence, 2_000), style)

    def heard(self, state: str, reason: str) -> None:
        """The connection changed."""
        before, self._state = self._state, state
        if self._stop.is_set():
            return  # the person has left: what is not delivered is told at the end
        why = f" ({one_line(reason)})" if reason else ""
        match state:
            case LineState.CONNECTED if self._was_here:
                self.say("connected again", "green")
            case LineState.CONNECTED:
                self._was_here = True
                self.say(f"connected to {one_line(reason)}; waiting for work")
            case LineState.LOST:
                self.say(f"the connection is lost{why}: what you typed stays; connecting again", "yellow")
            case LineState.UNREACHABLE if before not in (LineState.UNREACHABLE, LineState.LOST):
                self.say(f"cannot reach {self._url}{why}; trying again", "yellow")
            case LineState.DRAINING:
                self.say("the engine stops: it sends no more, and takes what you finish now", "yellow")
            case _:
                pass

    # --- the sitting ------------------------------------------------------------------------

    async def run(self, url: str, token: str | None, tls: SSLContext | None = None) -> int:
        """Until the person leaves."""
        agent = self.person.agent
        self._greet()
        with stopping_on_signals(Stop()) as stopping:
            serving = asyncio.create_task(
                agent.run(
                    url,
                    token,
                    self._stop,
                    on_connection=self.heard,
                    drain_timeout=LEAVE_SECONDS,
                    tls=tls,
                )
            )
            talking = asyncio.create_task(self._talk())
            signalled = asyncio.create_task(stopping.event.wait())
            try:
                await asyncio.wait({serving, talking, signalled}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                signalled.cancel()
                await _ended(talking)
                self._leave(is_refused=serving.done())
            await serving
            if stopping.number is not None:
                self._code = 128 + stopping.number
        if not talking.cancelled():
            talking.result()
        if agent.undelivered:
            answers = "1 answer" if agent.undelivered == 1 else f"{agent.undelivered} answers"
            self.say(
                f"the engine has not confirmed {answers}: whoever gets the work next answers anew", "red"
            )
        return self._code

    def _greet(self) -> None:
        agent = self.person.agent
        takes = ", ".join(agent.capabilities)
        self.say(f"{agent.agent_id} ({agent.type}) takes: {takes}", "bold")
        if self._keys.is_terminal:
            self.say("/help says what may be typed; Ctrl-D leaves.")

    def _leave(self, *, is_refused: bool) -> None:
        """Whatever is not answered goes to others."""
        self._stop.set()
        self.person.on_change = lambda: None
        number = self.person.give_back()
        if number:
            self.say(f"left; {number} task{'s go' if number > 1 else ' goes'} back to the fleet")
        elif not is_refused:
            self.say("left")

    async def _talk(self) -> None:
        """Show, take a line, do what it says."""
        while True:
            self._changed.clear()
            self._tell_gone()
            ask = self.person.asks[0] if self.person.asks else None
            if ask is not None and ask is not self._shown:
                self._show(ask)
            self._shown = ask
            try:
                line = await self._line(ask)
                if line is None or self._is_held(ask, line):
                    continue
                self._interrupts = 0
                if not await self._do(ask, line):
                    return
            except Misfit as error:
                self.say(str(error), "yellow")
            except Interrupted as interrupted:
                self._interrupts = 1 if interrupted.had_text else self._interrupts + 1
                if self._interrupts > 1:
                    self._code = 130
                    return
                self.say("Ctrl-C again leaves" + ("; the work goes back to the fleet" if ask else ""))
            except Ended:
                return

    def _is_held(self, ask: Ask | None, line: str) -> bool:
        """Whether a program's line waits for something to answer."""
        if ask is not None or not self._keys.is_scripted or line.startswith("/") or not line.strip():
            return False
        self._ahead = line
        return True

    async def _line(self, ask: Ask | None) -> str | None:
        """The next line for this ask; None where it is not the one to be asked any more."""
        if self._ahead is not None:
            if ask is None:
                await self._changed.wait()
                return None
            line, self._ahead = self._ahead, None
            return line
        prompt = self._reply(ask).prompt if ask is not None else "(waiting) "
        if self._as_json:
            prompt = ""
        reading = asyncio.create_task(self._keys.read(prompt, self._typed.pop(ask, "")))
        try:
            while not reading.done():
                changed = asyncio.create_task(self._changed.wait())
                soon = asyncio.create_task(self._until_soon(ask))
                await asyncio.wait({reading, changed, soon}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                soon.cancel()
                if reading.done():
                    break
                if self._changed.is_set() and (not self.person.asks or self.person.asks[0] is not ask):
                    if ask is None or ask in self.person.asks:
                        self._typed[ask] = self._keys.typed
                    return None
                if self._changed.is_set():
                    self._changed.clear()
                    self._tell_gone()
                    self._tell_others()
            return reading.result()
        finally:
            await _ended(reading)

    async def _until_soon(self, ask: Ask | None) -> None:
        """Say once that the time of an ask is nearly over; then wait for ever."""
        if ask is not None and ask.deadline is not None and ask not in self._warned:
            whole = (ask.deadline - ask.came_at).total_seconds()
            seconds = (ask.deadline - datetime.now(UTC)).total_seconds() - SOON_SECONDS
            if whole > 2 * SOON_SECONDS:
                await asyncio.sleep(max(0.0, seconds))
                self._warned.add(ask)
                self.say(f"{asked.left(ask)}: after that it goes to others", "yellow")
        await asyncio.Event().wait()

    def _tell_gone(self) -> None:
        for ask, reason in self.person.gone.items():
            why = f": {one_line(reason)}" if reason else ""
            self.say(f"{one_line(ask.title)} is not asked any more{why}", "yellow")
            self._forget(ask)
        self.person.gone.clear()

    def _tell_others(self) -> None:
        others = len(self.person.asks) - 1
        before, self._others = self._others, others
        if others > before:
            self.say(f"{others} more wait{'s' if others == 1 else ''} for you; /skip looks at the next")

    def _show(self, ask: Ask, *, is_whole: bool = False) -> None:
        if self._as_json:
            self._keys.show(lambda page: write(json_text(ask.to_document()), page.stream))
            return
        reply, others = self._reply(ask), len(self.person.asks) - 1
        self._others = others
        self._keys.show(lambda page: asked.draw(page, ask, reply, others, is_whole=is_whole))
        self._show_field(ask)

    def _show_field(self, ask: Ask) -> None:
        """The choices of the field that comes next."""
        choices = self._reply(ask).field_choices()
        if choices and not self._as_json:

            def draw(page: Page) -> None:
                page.pairs(list(asked.choice_rows(choices, "", page.look)))

            self._keys.show(draw)

    def _reply(self, ask: Ask) -> Reply:
        if ask not in self._replies:
            self._replies[ask] = Reply(
                ask.schema,
                ask.options,
                ask.vote_on,
                noun="vote" if ask.is_vote else "answer",
                is_open=ask.is_judge and not (ask.work and ask.work.vote and ask.work.vote.get("options")),
            )
        return self._replies[ask]

    def _forget(self, ask: Ask) -> None:
        self._replies.pop(ask, None)
        self._typed.pop(ask, None)
        self._warned.discard(ask)

    # --- lines ------------------------------------------------------------------------------

    async def _do(self, ask: Ask | None, line: str) -> bool:
        """What a line says; False where it says goodbye. Raises Misfit."""
        if ask is not None and ask not in self.person.asks:
            return True  # it was taken back at this very moment
        word, _, rest = line.strip().partition(" ")
        if line.startswith("//"):
            return self._answer(ask, line[1:])
        if word.startswith("/") and "\n" not in word:
            return await self._command(ask, word, rest.strip())
        if not line.strip() and (ask is None or self._reply(ask).field is None):
            return True
        return self._answer(ask, line)

    def _answer(self, ask: Ask | None, text: str) -> bool:
        if ask is None:
            self._typed[None] = text
            raise Misfit("nothing is asked at the moment; what you typed stays")
        is_complete, value = self._reply(ask).take(text)
        if is_complete:
            ask.answer(value)
            self._ended_with(ask, "your vote is cast" if ask.is_vote else "answered")
        else:
            self._show_field(ask)
        return True

    def _ended_with(self, ask: Ask, what: str) -> None:
        self._forget(ask)
        is_away = self._state in (LineState.LOST, LineState.UNREACHABLE)
        self.say(f"{what}; it is sent when the connection is back" if is_away else what, "green")

    async def _command(self, ask: Ask | None, word: str, rest: str) -> bool:
        commands: dict[str, Callable[[], bool] | Callable[[], Coroutine[Any, Any, bool]]] = {
            "/help": self._help,
            "/quit": lambda: False,
        }
        if ask is not None:
            commands |= {
                "/show": lambda: self._show_again(ask),
                "/edit": lambda: self._edit(ask),
                "/decline": lambda: self._decline(ask, rest),
                "/fail": lambda: self._fail(ask, rest),
                "/abstain": lambda: self._abstain(ask),
                "/skip": lambda: self._skip(ask),
            }
        if word not in commands:
            from agentorch_cli.core.hints import did_you_mean

            if ask is None and any(word == one.split()[0] for one, _ in asked.HELP):
                raise Misfit("nothing is asked at the moment")
            known = [one.split()[0] for one, _ in asked.HELP if one.startswith("/") and one != "//text"]
            raise Misfit(f"there is no {one_line(word, 100)}{did_you_mean(word, known)}; /help lists all")
        done = commands[word]()
        return done if isinstance(done, bool) else await done

    def _help(self) -> bool:
        self._keys.show(asked.draw_help)
        return True

    def _show_again(self, ask: Ask) -> bool:
        self._show(ask, is_whole=True)
        return True

    def _decline(self, ask: Ask, reason: str) -> bool:
        if ask.work is None:
            raise Misfit("a question cannot be given to somebody else: /abstain, or /skip for later")
        ask.decline(reason)
        self._ended_with(ask, "declined; it goes to somebody else")
        return True

    def _fail(self, ask: Ask, reason: str) -> bool:
        if ask.work is None:
            raise Misfit("a question cannot fail: /abstain, or /skip for later")
        if not reason:
            raise Misfit("say why: /fail the reason")
        ask.fail(reason)
        self._ended_with(ask, "told as failed")
        return True

    def _abstain(self, ask: Ask) -> bool:
        if not ask.is_vote:
            raise Misfit("this is no vote; /decline gives it to somebody else")
        ask.abstain()
        self._ended_with(ask, "abstained")
        return True

    def _skip(self, ask: Ask) -> bool:
        if len(self.person.asks) < 2:
            raise Misfit("there is nothing else for you; /decline gives it to somebody else")
        self.person.later(ask)
        self._shown = None
        return True

    async def _edit(self, ask: Ask) -> bool:
        command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or shutil.which("vi")
        if not self._keys.is_terminal:
            raise Misfit("/edit needs a terminal; type the answer as one line of JSON")
        if not command:
            raise Misfit("there is no editor: set VISUAL or EDITOR")
        text = await self._edited(
            shlex.split(command), self._replies[ask].draft if ask in self._replies else ""
        )
        if ask not in self.person.asks:
            return True
        if not text.strip():
            raise Misfit("the file is empty: nothing is sent")
        self._reply(ask).draft = text
        return self._answer(ask, text.rstrip("\n"))

    async def _edited(self, command: list[str], text: str) -> str:
        folder = Path(tempfile.mkdtemp(prefix="agentorch-"))
        try:
            path = folder / "answer.txt"
            path.write_text(text, "utf-8")
            with self._keys.lent():
                try:
                    process = await asyncio.create_subprocess_exec(
                        *command, str(path), preexec_fn=_hear_interrupts
                    )
                    await process.wait()
                except OSError as error:
                    raise Misfit(f"the editor does not start: {visible(error, 200)}") from None
            with path.open("rb") as file:
                return file.read(MOST_EDITED).decode("utf-8", "replace")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _hear_interrupts() -> None:
    """The editor's Ctrl-C is its own; here it is ignored meanwhile, which it would inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


@contextlib.contextmanager
def _told_by(say: Callable[[str], None]) -> Any:
    """What the agent would log goes above the line, and not through it."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    logger, teller = logging.getLogger("agentorch.agent"), Teller(logging.WARNING)
    before = logger.propagate
    logger.addHandler(teller)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(teller)
        logger.propagate = before
