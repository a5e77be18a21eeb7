"""Which `serve` works on the database of these settings, told by the database itself.

Its port may be another than the one that is configured here: `serve --port` says it to nobody else.
"""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING, Any

from agentorch_cli.errors import OrchestratorError

if TYPE_CHECKING:
    from agentorch_cli.cli.session import Session
    from agentorch_cli.views import NodeView

PROBE_SECONDS = 1.0


async def running_engine(session: Session) -> str | None:
    """The address of a `serve` on this machine that works on the same database; None where there is none.

    Of several it is the one on the configured port, if that is among them.
    """
    settings = session.settings
    ports = [node.port for node in await living_nodes(session) if node.port and node.host == platform.node()]
    if not ports:
        return None
    port = settings.gateway.port if settings.gateway.port in ports else ports[0]
    gateway = settings.gateway.model_copy(update={"port": port})
    return agents_url(settings.model_copy(update={"gateway": gateway}))


def agents_url(settings: Any) -> str:
    """Where the engine of this configuration takes its agents."""
    host = settings.gateway.host
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    scheme = "wss" if settings.gateway.tls_cert is not None else "ws"
    return f"{scheme}://{host}:{settings.gateway.port}/agents"


async def living_nodes(session: Session) -> list[NodeView]:
    """Each `serve` that works on this database now; one on this machine only if its port answers.

    Nothing is started for it, and what is wrong with the database is left to be said by who goes on.
    """
    settings = session.settings
    if not settings.database.url and not (settings.data_dir / "postgres" / "postmaster.pid").exists():
        return []  # the usual case, without a look that has to be imported
    from agentorch_cli.store.embedded import inspect

    if not settings.database.url and not (await inspect(settings.data_dir)).running:
        return []
    try:
        async with session.connect(prepare=False) as client:
            nodes = await client.call("node.list")
    except OrchestratorError:
        return []
    return [
        node
        for node in nodes
        if node.is_live
        and (
            node.port is None
            or node.host != platform.node()
            or await _answers(node.port, settings.gateway.host)
        )
    ]


async def _answers(port: int, host: str) -> bool:
    """Whether anybody takes connections there: a node that was killed is in the list for a while."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
