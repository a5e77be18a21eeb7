"""What happens on this node, as it happens, for programs that embed the engine.

The rows of the `events` table are the record; the bus is for listening along. A listener
that does not keep up loses the oldest news and is told how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

MOST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class News:
    """One thing that happened: `initialized`, `agent_registered`, `task_completed`, `error`, …"""

    kind: str
    task_id: str | None = None
    agent_id: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


class Subscription:
    """One listener's queue."""

    def __init__(self) -> None:
        self._news: deque[News] = deque(maxlen=MOST_KEPT)
        self._wake = asyncio.Event()
        self.missed = 0
        self.is_closed = False

    def put(self, news: News) -> None:
        if len(self._news) == MOST_KEPT:
            self.missed += 1
        self._news.append(news)
        self._wake.set()

    def close(self) -> None:
        self.is_closed = True
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[News]:
        while True:
            while self._news:
                yield self._news.popleft()
            if self.is_closed:
                return
            self._wake.clear()
            await self._wake.wait()


class Bus:
    """Hands news to everybody who listens; costs nothing while nobody does."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    @property
    def is_heard(self) -> bool:
        return bool(self._subscriptions)

    def subscribe(self) -> Subscription:
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        subscription.close()
        self._subscriptions.discard(subscription)

    def publish(self, kind: str, **facts: Any) -> None:
        """Raises nothing: a listener's trouble is its own."""
        if not self._subscriptions:
            return
        news = News(kind, facts.pop("task_id", None), facts.pop("agent_id", None), facts)
        for subscription in self._subscriptions:
            subscription.put(news)

    def close(self) -> None:
        for subscription in list(self._subscriptions):
            self.unsubscribe(subscription)
