"""The application: the board on top, a table of agents, tasks, votes or deadlocks below, and keys."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.widgets import Footer, Input, Static, Tab, Tabs

from agentorch_cli.cli import board
from agentorch_cli.cli.cockpit.grid import Grid
from agentorch_cli.cli.cockpit.lists import LISTINGS, Listing, State
from agentorch_cli.cli.cockpit.pages import Detail, Help, Question
from agentorch_cli.cli.cockpit.terminal import Gone, Terminal
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.sparks import History
from agentorch_cli.cli.watch import looks
from agentorch_cli.errors import OrchestratorError
from agentorch_cli.text import one_line, shorten

if TYPE_CHECKING:
    from agentorch_cli.client import Client
    from agentorch_cli.views import ChangeReply

MOST_TASKS = 500
"""Newest tasks that are asked for while their table is open."""

TASKS_EVERY = 1.0

MOST_ALARMS = 3

KEYS = (
    ("1 2 3 4", "agents, tasks, votes, deadlocks"),
    ("tab", "the next of them"),
    ("/", "filter: every word must be there, !word must not; Esc takes it away"),
    ("s", "sort by the next column; S turns it round"),
    ("enter", "open: a task's story, why it waits, its votes, graph, timeline"),
    ("p", "pause, go on"),
    ("q", "quit, or back"),
)
WRITE_KEYS = (
    ("C", "cancel the task"),
    ("R", "try the task again"),
    ("P", "pause the agent, or let it go on"),
)
READ_ONLY = "This view only looks: agentorch top --write may change things."

ACTIONS = {"C": "cancel", "R": "retry", "P": "halt"}
NOUNS = {"cancel": "task", "retry": "task", "halt": "agent"}


class Cockpit(App[None]):
    """`agentorch top`."""

    TITLE = "agentorch"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: auto; max-height: 12; padding: 0 1; }
    #filter { height: 1; border: none; padding: 0 1; display: none; }
    #filter.open { display: block; }
    #state { height: 1; padding: 0 1; color: $text-muted; }
    Tabs { height: 2; }
    Grid { height: 1fr; scrollbar-size-vertical: 1; background: $background; }
    Grid > .datatable--header { background: $background; color: $text-muted; text-style: none; }
    #sheet { padding: 0 1; height: 1fr; scrollbar-size-vertical: 1; }
    #paper { height: auto; }
    Question, Help { align: center middle; }
    #ask {
      width: auto; max-width: 90%; height: auto; padding: 1 3; background: $surface; border: round $primary;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "quit"),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False, priority=True),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("s", "sort", "sort"),
        Binding("S", "turn", show=False),
        Binding("tab", "next", "next", priority=True),
        Binding("p,space", "pause", "pause", key_display="p"),
        Binding("C", "cancel", "cancel", show=False),
        Binding("R", "retry", "retry", show=False),
        Binding("P", "halt", "pause/resume agent", show=False),
        Binding("question_mark", "help", "keys", key_display="?"),
        Binding("escape", "unfilter", show=False),
        Binding("j", "move(1)", show=False),
        Binding("k", "move(-1)", show=False),
    ]

    def __init__(self, client: Client, *, may_write: bool = False, server: str | None = None) -> None:
        super().__init__(driver_class=Terminal)
        self.client = client
        self.may_write = may_write
        self.going = asyncio.Event()
        self.going.set()
        self.state: State | None = None
        self._server = server
        self._history = History()
        self._listing = LISTINGS[0]
        self._error: BaseException | None = None
        self._wants_tasks = asyncio.Event()
        if may_write:
            for key, words in WRITE_KEYS:
                self.bind(key, ACTIONS[key], description=words.partition(",")[0])

    async def run_until_left(self) -> None:
        """Until the person leaves. Raises the error that ended it."""
        try:
            await self.run_async()
        finally:
            self._restore_signals()
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # SIGTERM or SIGHUP, which Textual takes for a quit
            raise asyncio.CancelledError
        if self._error is not None:
            raise self._error

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        tabs = Tabs(*(Tab(one.name, id=one.name) for one in LISTINGS))
        tabs.can_focus = False
        yield tabs
        yield Input(placeholder="filter", id="filter")
        yield Grid()
        yield Static(id="state")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one(Grid).focus()
        self.run_worker(self._look(), group="look")
        self.run_worker(self._look_at_tasks(), group="tasks")

    # --- what is shown ------------------------------------------------------------------------

    @property
    def look(self) -> Look:
        """What the terminal can do."""
        size = self.size
        return Look(
            True, self.console.encoding not in ("utf-8", "utf8"), size.width, size.height, datetime.now(UTC)
        )

    def show(self) -> None:
        """Everything, anew."""
        if self.state is not None and self.is_running:
            with contextlib.suppress(NoMatches):  # who leaves takes the screen away while an answer comes
                self._show(self.state)

    def _show(self, state: State) -> None:
        screen = self.screen_stack[0]
        look = replace(self.look, now=state.status.at)
        screen.query_one("#head", Static).update(self._head(look))
        grid = screen.query_one(Grid)
        grid.show(self._listing, state, look)
        screen.query_one("#state", Static).update(self._line(grid, look))
        for one in LISTINGS:
            number = self._number(one)
            screen.query_one(f"#{one.name}", Tab).label = f"{one.name} {number:,}" if number else one.name

    def _head(self, look: Look) -> Text:
        assert self.state is not None
        status = self.state.status
        inner = replace(look, width=look.width - 2)
        lines = [Text.assemble(("agentorch", "bold"), "  ") + board.where(status.nodes, look)]
        if self._server is not None:
            lines[0] += Text("  ") + look.text(self._server, "dim")
        if not self.going.is_set():
            lines[0] += Text("  ") + Text(" paused ", "black on yellow")
        few = 1 if look.height < board.LOW else MOST_ALARMS
        for sentence in status.alarms[:few]:
            line = board.alarm(sentence, look)
            line.truncate(inner.width, overflow="ellipsis")
            lines.append(line)
        if len(status.alarms) > few:
            lines.append(Text(f"! {len(status.alarms) - few} more", "bold red"))
        lines += board.facts(status, inner, self._history)
        return Text("\n").join(lines[: max(2, look.height // 3)])

    def _line(self, grid: Grid, look: Look) -> Text:
        by = grid.sorted_by.get(self._listing.name)
        if grid.words:
            parts = [f"{grid.number:,} of {grid.total:,}", f"filter: {grid.words}"]
        else:
            every = self._number(self._listing)
            of = f" of {every:,}" if every > grid.total else ""
            parts = [f"{grid.total:,}{of} {self._listing.name.lower()}"]
        if by is not None:
            parts.append(f"by {by[0].lower()}")
        if grid.number > grid.row_count:
            parts.append(f"the first {grid.row_count:,} are shown")
        return look.text("   ".join(parts), "dim")

    def _number(self, listing: Listing) -> int:
        """How many there are of what is listed, as far as it is known; some may not have been asked for."""
        if self.state is None:
            return 0
        status = self.state.status
        match listing.name:
            case "Agents":
                return len(status.agents)
            case "Tasks":
                return sum(status.task_counts.values())
            case "Deadlocks":
                return sum(one.resolved_at is None for one in status.deadlocks)
        return 0

    def tell(self, sentence: str, severity: Any = "information") -> None:
        """A word to the person, in a corner, for a while."""
        self.notify(shorten(one_line(sentence), 400), severity=severity, markup=False)

    # --- what is asked ------------------------------------------------------------------------

    async def _look(self) -> None:
        try:
            async for status in looks(self.client, self.going):
                if not self.going.is_set():
                    continue
                self._history.add(status.flow)
                self.state = State(status) if self.state is None else replace(self.state, status=status)
                self.show()
        except OrchestratorError as error:
            self.give_up(error)

    async def _look_at_tasks(self) -> None:
        """The newest tasks, while their table is open."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                await self._wants_tasks.wait()
                await self.going.wait()
                start = clock()
                tasks = await self.client.call("task.list", limit=MOST_TASKS)
                if self.state is not None and self.going.is_set():
                    self.state = replace(self.state, tasks=tasks)
                    self.show()
                await asyncio.sleep(max(TASKS_EVERY, 4 * (clock() - start)))
        except OrchestratorError as error:
            self.give_up(error)

    def on_gone(self, _: Gone) -> None:
        self.give_up(SystemExit(128 + signal.SIGHUP))

    def give_up(self, error: BaseException) -> None:
        """Leave, with this error as the program's."""
        self._error = error
        self.exit()

    # --- keys ---------------------------------------------------------------------------------

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        self._listing = next((one for one in LISTINGS if one.name == event.tab.id), self._listing)
        if self._listing.noun == "task":
            self._wants_tasks.set()
        else:
            self._wants_tasks.clear()
        self.refresh_bindings()
        self.show()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.query_one(Grid).words = event.value
        self.show()

    def on_input_submitted(self) -> None:
        self.query_one(Grid).focus()

    def on_data_table_row_selected(self, event: Grid.RowSelected) -> None:
        if event.row_key.value is not None:
            self.push_screen(Detail(self._listing.noun, event.row_key.value))

    def on_data_table_header_selected(self, event: Grid.HeaderSelected) -> None:
        grid = self.query_one(Grid)
        title = event.column_key.value or ""
        if grid.sorted_by.get(self._listing.name, ("", False))[0] == title:
            grid.turn()
        else:
            grid.sort_by(title)
        self.show()

    def on_resize(self) -> None:
        self.call_later(self.show)  # Textual takes the new size after this

    def key_1(self) -> None:
        self._choose(LISTINGS[0])

    def key_2(self) -> None:
        self._choose(LISTINGS[1])

    def key_3(self) -> None:
        self._choose(LISTINGS[2])

    def key_4(self) -> None:
        self._choose(LISTINGS[3])

    def _choose(self, listing: Listing) -> None:
        if len(self.screen_stack) == 1:
            self.query_one(Tabs).active = listing.name

    def action_next(self) -> None:
        self.screen.query_one(Tabs).action_next_tab()

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.add_class("open")
        box.focus()

    def action_unfilter(self) -> None:
        """Esc: the filter goes, and everything is there again."""
        if len(self.screen_stack) > 1:
            return
        box = self.query_one("#filter", Input)
        box.value = ""
        box.remove_class("open")
        self.query_one(Grid).focus()

    def action_sort(self) -> None:
        self.query_one(Grid).sort_next()
        self.show()

    def action_turn(self) -> None:
        self.query_one(Grid).turn()
        self.show()

    def action_move(self, by: int) -> None:
        grid = self.query_one(Grid)
        grid.move_cursor(row=grid.cursor_row + by)

    def action_pause(self) -> None:
        if self.going.is_set():
            self.going.clear()
        else:
            self.going.set()
        self.show()

    def action_help(self) -> None:
        self.push_screen(Help(KEYS + (WRITE_KEYS if self.may_write else ())))

    def action_leave(self) -> None:
        self.exit()

    def action_interrupt(self) -> None:
        """Ctrl-C ends the program as it does everywhere."""
        self.give_up(KeyboardInterrupt())

    # --- changes ------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A change is offered where there is something that it can change; tables are sorted where one is."""
        if action in ("filter", "sort", "turn"):
            return len(self.screen_stack) == 1
        return action not in NOUNS or self._open_noun() == NOUNS[action]

    def action_cancel(self) -> None:
        self._ask("cancel", "Cancel the task", "task.cancel", "task_ids", "cancelled")

    def action_retry(self) -> None:
        self._ask("retry", "Try the task again:", "task.retry", "task_ids", "to be tried again")

    def action_halt(self) -> None:
        agent_id = self._open_key()
        agents = self.state.status.agents if self.state is not None else []
        is_set_aside = any(
            one.agent_id == agent_id
            and (one.status in ("paused", "draining") or one.excluded_until is not None)
            for one in agents
        )
        if is_set_aside:
            self._ask("halt", "Give work again to the agent", "agent.resume", "agent_ids", "gets work again")
        else:
            self._ask("halt", "Give nothing new to the agent", "agent.pause", "agent_ids", "paused")

    def _open_noun(self) -> str:
        screen = self.screen_stack[-1] if self.screen_stack else None
        return screen.noun if isinstance(screen, Detail) else self._listing.noun

    def _open_key(self) -> str | None:
        screen = self.screen_stack[-1]
        return screen.key if isinstance(screen, Detail) else self.query_one(Grid).chosen

    def _ask(self, action: str, words: str, method: str, parameter: str, done: str) -> None:
        """Change something after a yes."""
        key = self._open_key()
        if not self.may_write:
            self.tell(READ_ONLY, "warning")
            return
        if key is None or self._open_noun() != NOUNS[action]:
            return

        def answered(is_yes: bool | None) -> None:
            if is_yes:
                self.run_worker(self._change(method, parameter, key, done), group="change")

        name = self._name_of(key)
        question = Text.assemble(words, " ", (one_line(name or key), "bold"), "?")
        if name is not None:
            question.append(f"\n{one_line(key)}", "dim")
        self.push_screen(Question(question), answered)

    def _name_of(self, key: str) -> str | None:
        """What people call the task; None where it has no name, and for agents."""
        if self.state is None or self._open_noun() != "task":
            return None
        known = (*self.state.tasks, *self.state.status.running)
        return next((one.name for one in known if one.task_id == key), None)

    async def _change(self, method: str, parameter: str, key: str, done: str) -> None:
        name = self._name_of(key)
        try:
            reply: ChangeReply = await self.client.call(method, **{parameter: [key]})
        except OrchestratorError as error:
            self.tell(error.message, "error")
            return
        for one in reply.changed:
            self.tell(f"{name or one}: {done}")
        for one, why in reply.unchanged.items():
            self.tell(f"{name or one}: {why}", "warning")

    # --- signals ------------------------------------------------------------------------------

    def _restore_signals(self) -> None:
        """Textual listens to what stops and continues a program; afterwards nobody does."""
        if os.name == "posix":
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.signal(signal.SIGCONT, signal.SIG_DFL)
