"""The timeline for a terminal: a row for each task, and more for one that several agents worked on.

Work is drawn solid, a wait light. Work that did not complete ends with the sign of what became of it,
so that nothing depends on colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from agentorch_cli.pictures.model import TASK_STATES, Bar, Timeline, outcome
from agentorch_cli.pictures.pen import Pen
from agentorch_cli.pictures.words import cells, marks, span
from agentorch_cli.signs import STYLES

MOST_ROWS: Final = 300
"""Tasks that are shown: of more the longest chain, and what took longest besides."""

TOOK: Final = 7
"""Columns for how long."""

AGENTS: Final = 18
"""Columns for who, where there is room."""

ROOMY: Final = 100
"""From this width on there is."""

MARK: Final = 9
"""Columns between two marks of the axis, at least."""

_FILLS: Final = {
    # state: solid, its last letter; the same in ASCII
    "completed": ("█", "█", "#", "#"),
    "accepted": ("▓", "▶", "=", ">"),
    "sent": ("▒", "▶", "-", ">"),
    "pending": ("·", "·", ".", "."),
    "blocked": ("┄", "┄", " ", " "),
}

Lanes = Sequence[Sequence[Bar]]


def timeline_text(timeline: Timeline, width: int, *, is_ascii: bool = False) -> Text:
    """The timeline in at most `width` columns, below a line that counts its tasks."""
    return _Chart(timeline, Pen(max(width, 20), is_ascii)).draw()


class _Chart:
    def __init__(self, timeline: Timeline, pen: Pen) -> None:
        self.timeline = timeline
        self.pen = pen
        self.tasks = timeline.rows()
        self.shown = self._chosen()
        longest = max((cells(pen.fit(lanes[0][0].name, 200)) for lanes in self.shown), default=4)
        self.names = min(longest, max(pen.width // 4, 8), 32)
        self.agents = AGENTS if pen.width >= ROOMY else 0
        self.took = TOOK if pen.width >= 40 else 0
        self.axis = max(
            pen.width
            - self.names
            - 4
            - (self.took and self.took + 1)
            - (self.agents + 2 if self.agents else 0),
            6,
        )

    def draw(self) -> Text:
        counted = Counter(outcome(lanes) for lanes in self.tasks)
        total = len(self.tasks)
        title = f"{total:,} task{'' if total == 1 else 's'} in {span(self.timeline.seconds)}"
        states = [(state, count) for state, count in counted.most_common() if state in STYLES]
        states.sort(
            key=lambda pair: TASK_STATES.index(pair[0]) if pair[0] in TASK_STATES else len(TASK_STATES)
        )
        lines = [self.pen.counts(title, states, self.timeline.cut), Text(), self._header()]
        critical = set(self.timeline.critical)
        for lanes in self.shown:
            lines += self._rows(lanes, is_critical=lanes[0][0].task_id in critical)
        if len(self.shown) < total:
            lines.append(Text(f"and {total - len(self.shown):,} tasks more, which took less", "dim"))
        if critical:
            lines += [Text(), self._chain()]
        return Text("\n").join(lines)

    def _chosen(self) -> list[list[list[Bar]]]:
        if len(self.tasks) <= MOST_ROWS:
            return self.tasks
        critical = set(self.timeline.critical)
        took = [sum(bar.seconds for lane in lanes for bar in lane if not bar.is_wait) for lanes in self.tasks]
        order = sorted(
            range(len(self.tasks)),
            key=lambda place: (self.tasks[place][0][0].task_id not in critical, -took[place], place),
        )
        return [self.tasks[place] for place in sorted(order[:MOST_ROWS])]

    def _header(self) -> Text:
        line = [" "] * self.axis
        end = 0
        for at, words in marks(self.timeline.seconds, max(self.axis // MARK, 1)):
            column = self._column(at)
            if column >= end and column + len(words) <= len(line):
                line[column : column + len(words)] = words
                end = column + len(words) + 1
        if self.timeline.is_open and end + 3 <= self.axis:
            line[self.axis - 3 : self.axis] = "now"
        shown = Text.assemble((" " * (self.names + 4) + "".join(line), "dim"))
        if self.agents:
            shown.append(" " * (TOOK + 3) + "agents", "dim")
        return shown

    def _column(self, seconds: float) -> int:
        whole = self.timeline.seconds or 1.0
        return min(int(seconds / whole * self.axis), self.axis)

    def _rows(self, lanes: Lanes, *, is_critical: bool) -> list[Text]:
        state = outcome(lanes)
        name = self.pen.fit(lanes[0][0].name, self.names)
        style = STYLES[state][2]
        mark = ("!" if self.pen.is_ascii else "▌") if is_critical else " "
        head = Text.assemble((mark, "red"), (f"{self.pen.sign(state)} ", style))
        head.append(name + " " * (self.names - cells(name) + 1), "bold" if is_critical else "")
        blank = Text.assemble((mark, "red"), " " * (self.names + 3))
        return [
            (blank.copy() if number else head).append_text(self._lane(lane))
            for number, lane in enumerate(lanes)
        ]

    def _lane(self, lane: Sequence[Bar]) -> Text:
        row: list[tuple[str, str]] = [(" ", "")] * self.axis
        for bar in sorted(lane, key=lambda bar: not bar.is_wait):
            start = min(self._column(self.timeline.offset(bar.start)), self.axis - 1)
            end = max(self._column(self.timeline.offset(bar.end)), start + 1)
            fill, last = self._fill(bar)
            style = "dim" if bar.is_wait else STYLES[bar.state][2]
            row[start:end] = [(fill, style)] * (end - start - 1) + [(last, style)]
        shown = Text()
        for letter, style in row:
            shown.append(letter, style)
        work = [bar for bar in lane if not bar.is_wait]
        if not work:
            return shown
        took = span(sum(bar.seconds for bar in work))
        if self.took:
            shown.append(f" {took:>{TOOK}}", "dim")
        if self.agents:
            agents = list(dict.fromkeys(bar.agent for bar in work))
            shown.append("  " + self.pen.few(agents, self.agents))
        return shown

    def _fill(self, bar: Bar) -> tuple[str, str]:
        solid, last, plain, plain_last = _FILLS.get(
            bar.status, ("▒", STYLES[bar.state][0], "~", STYLES[bar.state][1])
        )
        return (plain, plain_last) if self.pen.is_ascii else (solid, last)

    def _chain(self) -> Text:
        """The longest chain in words; of a long one both ends."""
        names = {lanes[0][0].task_id: lanes[0][0].name for lanes in self.tasks}
        chain = [self.pen.fit(names[one], 24) for one in self.timeline.critical if one in names]
        if len(chain) > 8:
            chain = [*chain[:4], f"({len(chain) - 7} more)", *chain[-3:]]
        shown = Text.assemble(("!" if self.pen.is_ascii else "▌", "red"), (" the longest chain: ", "dim"))
        lines = [shown]
        for number, name in enumerate(chain):
            step = f" {self.pen.arrow} " if number else ""
            if cells(lines[-1].plain) + cells(step) + cells(name) > self.pen.width:
                lines.append(Text("  "))
            lines[-1].append(step, "dim").append(name)
        for line in lines:
            line.truncate(self.pen.width, overflow="crop")
        return Text("\n").join(lines)
