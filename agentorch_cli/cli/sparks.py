"""What comes and goes, as a row of little bars: one for each step of time."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from agentorch_cli.cli.look import Look
from agentorch_cli.views import FlowView

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.:-=+*#"

MOST_STEPS = 300
"""That a view which stays open remembers: ten minutes."""


def spark(values: Sequence[float | None], look: Look, style: str = "") -> Text:
    """Bars from none to the largest: none is dim and the lowest, unknown is a blank."""
    bars = ASCII_BARS if look.is_ascii else BARS
    top = max((value for value in values if value), default=0.0)
    line = Text()
    for value in values:
        if value is None:
            line.append(" ")
        elif value <= 0:
            line.append(bars[0], "dim")
        else:
            line.append(bars[min(1 + int(value / top * (len(bars) - 2)), len(bars) - 1)], style)
    return line


class History:
    """The flow for as long as somebody watches: what each look tells of the last minute, put together."""

    def __init__(self) -> None:
        self._steps: dict[int, tuple[float, float]] = {}
        self._newest = 0
        self.in_per_second = 0.0
        self.out_per_second = 0.0

    def add(self, flow: FlowView) -> None:
        """What is known of whole steps; where so much happens that not even one was read, the rate of now."""
        first = flow.step - len(flow.came) + 1
        seconds = flow.step_seconds or 1.0  # a server may say anything
        for number, (came, ended) in enumerate(zip(flow.came, flow.ended, strict=False), first):
            if came is not None and ended is not None:
                self._steps[number] = (came / seconds, ended / seconds)
        if flow.seconds < 2 * flow.step_seconds:
            self._steps[flow.step] = (flow.in_per_second, flow.out_per_second)
        self._newest = max(self._newest, flow.step)
        self._steps = {step: rates for step, rates in self._steps.items() if step > self._newest - MOST_STEPS}
        self.in_per_second, self.out_per_second = flow.in_per_second, flow.out_per_second

    def lines(self, steps: int) -> tuple[list[float | None], list[float | None]]:
        """What came and what ended, by step, oldest first: at most so many, from the first that is known."""
        first = max(self._newest - steps + 1, min(self._steps, default=self._newest))
        known = [self._steps.get(step) for step in range(first, self._newest + 1)]
        return [one and one[0] for one in known], [one and one[1] for one in known]


def rate(per_second: float) -> str:
    """`12/s`, `1.4/s`; what is slower than one in two seconds by the minute."""
    if per_second == 0:
        return "0/s"
    if per_second < 0.5:
        return f"{per_second * 60:.0f}/min" if per_second >= 1 / 60 else "<1/min"
    return f"{per_second:,.1f}/s" if per_second < 10 else f"{per_second:,.0f}/s"
