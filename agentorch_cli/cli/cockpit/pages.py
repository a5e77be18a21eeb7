"""What Enter opens: a task with its story, why it waits, votes, graph and times; an agent, vote, deadlock."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.css.query import NoMatches
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Static, Tab, Tabs

from agentorch_cli.cli import columns, deadlock, pictures, portrait, story
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.tables import GAP, Page
from agentorch_cli.errors import NotFound, OrchestratorError

if TYPE_CHECKING:
    from agentorch_cli.cli.cockpit.app import Cockpit
    from agentorch_cli.client import Client

EVERY = 1.0
"""Seconds between two looks at what is open."""

DUTY = 4
"""A look, with its drawing, may take a fifth of the time at most."""

MOST_HELD = 100
"""Tasks of an agent that are shown."""

Draw = Callable[[Page], None]


@dataclass(frozen=True, slots=True)
class Sheet:
    """One tab of a page: asks, and says how the answer is drawn."""

    title: str
    ask: Callable[[Client, str], Awaitable[Draw]]


class Detail(Screen[None]):
    """One thing, with a tab for each way to look at it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,backspace", "leave", "back"),
        Binding("right", "next", show=False),
        Binding("shift+tab,left", "previous", show=False),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
    ]

    def __init__(self, noun: str, key: str) -> None:
        super().__init__()
        self.noun = noun
        self.key = key
        self._sheets = SHEETS[noun]
        self._draw: Draw | None = None
        self._again = asyncio.Event()

    def compose(self) -> ComposeResult:
        tabs = Tabs(*(Tab(sheet.title, id=f"sheet-{n}") for n, sheet in enumerate(self._sheets)))
        tabs.can_focus = False
        yield tabs
        with VerticalScroll(id="sheet"):
            yield Static(id="paper")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#sheet").focus()
        self.run_worker(self._follow(), exclusive=True)

    def on_tabs_tab_activated(self) -> None:
        self._draw = None
        self.query_one("#sheet").scroll_to(y=0, animate=False)
        self._again.set()

    def on_resize(self) -> None:
        self._show()

    def action_leave(self) -> None:
        self.dismiss()

    def action_next(self) -> None:
        self.query_one(Tabs).action_next_tab()

    def action_previous(self) -> None:
        self.query_one(Tabs).action_previous_tab()

    def action_down(self) -> None:
        self.query_one("#sheet").scroll_down()

    def action_up(self) -> None:
        self.query_one("#sheet").scroll_up()

    def key_1(self) -> None:
        self._open(0)

    def key_2(self) -> None:
        self._open(1)

    def key_3(self) -> None:
        self._open(2)

    def key_4(self) -> None:
        self._open(3)

    def key_5(self) -> None:
        self._open(4)

    @property
    def _cockpit(self) -> Cockpit:
        from agentorch_cli.cli.cockpit.app import Cockpit

        assert isinstance(self.app, Cockpit)
        return self.app

    def _open(self, number: int) -> None:
        if number < len(self._sheets):
            self.query_one(Tabs).active = f"sheet-{number}"

    @property
    def _sheet(self) -> Sheet:
        return self._sheets[int((self.query_one(Tabs).active or "sheet-0").removeprefix("sheet-"))]

    async def _follow(self) -> None:
        """Ask again and again for what is open, until it is left."""
        clock = asyncio.get_running_loop().time
        while True:
            self._again.clear()
            start = clock()
            try:
                self._draw = await self._sheet.ask(self._cockpit.client, self.key)
            except NotFound as error:
                self._draw = _sentence(error.message)
            except OrchestratorError as error:
                self._cockpit.give_up(error)
                return
            with contextlib.suppress(NoMatches):  # who leaves takes the page away while an answer comes
                self._show()
            try:  # a large graph is asked for less often
                async with asyncio.timeout(max(EVERY, DUTY * (clock() - start))):
                    await self._again.wait()
            except TimeoutError:
                await self._cockpit.going.wait()

    def _show(self) -> None:
        if self._draw is not None:
            width = max(20, self.size.width - 4)
            self.query_one("#paper", Static).update(captured(self._draw, self._cockpit.look, width))


class Question(ModalScreen[bool]):
    """Yes or no, before something is changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q,enter", "answer(False)", "no", key_display="n"),
    ]

    def __init__(self, words: Text) -> None:
        super().__init__()
        self._words = words

    def compose(self) -> ComposeResult:
        yield Static(
            self._words + Text.assemble("\n\n", ("y", "bold"), " yes   ", ("n", "bold"), " no"), id="ask"
        )

    def action_answer(self, is_yes: bool) -> None:
        self.dismiss(is_yes)


class Help(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "leave", "back")]

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._rows = rows

    def compose(self) -> ComposeResult:
        keys = Table.grid(padding=(0, GAP, 0, 0))
        keys.add_column(justify="right", style="bold cyan", no_wrap=True)
        keys.add_column()
        for key, words in self._rows:
            keys.add_row(key, words)
        yield Static(keys, id="ask")

    def action_leave(self) -> None:
        self.dismiss()


def captured(draw: Draw, look: Look, width: int) -> Text:
    """A page of the other commands, as text that can be scrolled."""
    stream = io.StringIO()
    page = Page(stream, replace(look, is_terminal=True, width=width, height=1_000, now=datetime.now(UTC)))
    draw(page)
    return Text.from_ansi(stream.getvalue())


def _sentence(words: str) -> Draw:
    return lambda page: page.line(page.look.text(words, "dim"))


async def _story(client: Client, task_id: str) -> Draw:
    task = await client.call("task.get", task_id=task_id)
    return lambda page: story.draw(page, task)


async def _why(client: Client, task_id: str) -> Draw:
    why = await client.call("task.why", task_id=task_id)
    return lambda page: story.draw_why(page, why)


async def _vote_of_task(client: Client, task_id: str) -> Draw:
    task = await client.call("task.get", task_id=task_id)
    if task.decision is None:
        return _sentence("This task is not voted on.")
    return lambda page: story.draw_decision(page, task.decision)


async def _graph(client: Client, task_id: str) -> Draw:
    found = await client.call("task.graph", task_id=task_id)
    return lambda page: pictures.draw_graph(page, found)


async def _times(client: Client, task_id: str) -> Draw:
    found = await client.call("task.timeline", task_id=task_id)
    return lambda page: pictures.draw_timeline(page, found)


async def _agent(client: Client, agent_id: str) -> Draw:
    agent = await client.call("agent.get", agent_id=agent_id)
    return lambda page: portrait.draw(page, agent)


async def _work(client: Client, agent_id: str) -> Draw:
    agent = await client.call("agent.get", agent_id=agent_id)
    tasks = [await client.call("task.get", task_id=one) for one in agent.working_on[:MOST_HELD]]

    def draw(page: Page) -> None:
        if tasks:
            page.table(columns.RUNNING, tasks)
        else:
            page.line(page.look.text("It holds nothing.", "dim"))

    return draw


async def _vote(client: Client, decision_id: str) -> Draw:
    decision = await client.call("consensus.get", decision_id=decision_id)
    return lambda page: story.draw_decision(page, decision)


async def _deadlock(client: Client, deadlock_id: str) -> Draw:
    found = await client.call("deadlock.get", deadlock_id=deadlock_id)
    return lambda page: deadlock.draw(page, found)


SHEETS: dict[str, tuple[Sheet, ...]] = {
    "task": (
        Sheet("Story", _story),
        Sheet("Why", _why),
        Sheet("Votes", _vote_of_task),
        Sheet("Graph", _graph),
        Sheet("Timeline", _times),
    ),
    "agent": (Sheet("Agent", _agent), Sheet("Work", _work)),
    "vote": (Sheet("Vote", _vote),),
    "deadlock": (Sheet("Deadlock", _deadlock),),
}
