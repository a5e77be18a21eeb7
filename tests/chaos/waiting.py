"""Waiting for the end of what a crew was given; who waits in vain says how things stand."""

from __future__ import annotations

from agentorch_cli.chaos.crew import Crew

OPEN = "select count(*) from task_distributions where completed_at is null"
STANDING = (
    "select name, status, wanted, waiting_on, is_delayed, attempts_made from task_distributions"
    " where completed_at is null limit 20",
    "select task_id, agent_id, attempt, status, is_parked, node_id, sent_at, now() as now from task_attempts"
    " where status in ('sent', 'accepted') limit 20",
    "select agent_id, status, node_id, last_heartbeat, excluded_until from agent_registry",
    "select * from leases",
)


async def all_over(crew: Crew, seconds: float = 240.0) -> None:
    """What the client was asked for is submitted, and has ended. Raises AssertionError with what is open."""
    client = crew.clients[0]
    assert client.process is not None and client.process.stdin is not None
    client.process.stdin.close()

    async def is_over() -> bool:
        return client.has_finished and not await crew.ask_one(OPEN)

    try:
        await crew.until("all tasks have ended", is_over, seconds)
    except TimeoutError as error:
        rows = [dict(row) for statement in STANDING for row in await crew.ask(statement)]
        stands = f"{error}; the client has finished: {client.has_finished}"
        raise AssertionError("\n".join(map(str, [stands, *rows, crew.serve.said()]))) from None
