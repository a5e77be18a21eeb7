"""Runs the program as `python -m agentorch_cli` does, and kills it at a named point.

The point stands in CHAOS_POINT as `NAME:before:N` or `NAME:after:N`: the Nth time that the statement NAME is
asked for, that work is sent (`deliver`) or that results are acknowledged (`acknowledge`), or that a
transaction commits (`commit`), the process ends at once, as by kill -9. The program itself knows nothing of
this: its methods are wrapped from outside.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any


class Point:
    """Where this process ends."""

    def __init__(self, text: str) -> None:
        self.name, self.moment, number = text.split(":")
        self._left = int(number)

    def reached(self, name: str, moment: str) -> None:
        if name == self.name and moment == self.moment:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def install(point: Point) -> None:
    """Wrap the methods through which everything goes."""
    from agentorch_cli.gateway.server import Gateway
    from agentorch_cli.store.database import Database, Transaction

    for place, method in ((Database, "fetch"), (Database, "fetch_one"), (Database, "hot")):
        setattr(place, method, _asking(point, getattr(place, method)))
    for method in ("fetch", "fetch_one"):
        setattr(Transaction, method, _asking(point, getattr(Transaction, method)))
    for method in ("deliver", "acknowledge"):
        setattr(Gateway, method, _calling(point, method, getattr(Gateway, method)))
    Database.transaction = _committing(point, Database.transaction)  # type: ignore[method-assign]


def _asking(point: Point, method: Callable[..., Any]) -> Callable[..., Any]:
    async def ask(self: Any, name: str, *arguments: Any) -> Any:
        point.reached(name, "before")
        found = await method(self, name, *arguments)
        point.reached(name, "after")
        return found

    return ask


def _calling(point: Point, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *arguments: Any) -> Any:
        point.reached(name, "before")
        found = method(self, *arguments)
        point.reached(name, "after")
        return found

    return call


def _committing(point: Point, method: Callable[..., Any]) -> Callable[..., Any]:
    @contextlib.asynccontextmanager
    async def transaction(self: Any) -> Any:
        async with method(self) as tx:
            yield tx
            point.reached("commit", "before")
        point.reached("commit", "after")

    return transaction


if __name__ == "__main__":
    if "CHAOS_POINT" in os.environ:
        install(Point(os.environ["CHAOS_POINT"]))
    from agentorch_cli.__main__ import main

    sys.exit(main())
