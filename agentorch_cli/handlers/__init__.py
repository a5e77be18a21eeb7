"""One small async function per operation. Local and remote calls both end here.

A handler takes the context and keyword arguments, asks the store, and answers with a view.
It raises the errors of `errors`; it prints nothing and knows nothing of terminals.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from agentorch_cli.handlers.agents import (
    drain_agents,
    get_agent,
    list_agents,
    pause_agents,
    register_agents,
    remove_agents,
    resume_agents,
)
from agentorch_cli.handlers.budgets import get_budget, list_budgets, remove_budgets, set_budget
from agentorch_cli.handlers.context import Context, Handler
from agentorch_cli.handlers.database import back_up_database, get_database, restore_database
from agentorch_cli.handlers.deadlocks import check_deadlocks, get_deadlock, list_deadlocks, resolve_deadlocks
from agentorch_cli.handlers.events import list_events
from agentorch_cli.handlers.graphs import graph_of_task, timeline_of_task
from agentorch_cli.handlers.history import prune_history
from agentorch_cli.handlers.ids import resolve_ids
from agentorch_cli.handlers.limits import list_limits, remove_limits, set_limit
from agentorch_cli.handlers.outcomes import say_outcome, say_outcomes
from agentorch_cli.handlers.schedules import (
    add_schedule,
    get_schedule,
    list_schedules,
    pause_schedules,
    remove_schedules,
    resume_schedules,
    run_schedule,
)
from agentorch_cli.handlers.schema import apply_schema
from agentorch_cli.handlers.status import get_status, list_nodes
from agentorch_cli.handlers.tally import tally_tasks
from agentorch_cli.handlers.tasks import (
    cancel_tasks,
    depend_on,
    get_task,
    list_tasks,
    match_tasks,
    plan_tasks,
    retry_tasks,
    submit_tasks,
    wait_for_tasks,
    why_task,
)
from agentorch_cli.handlers.tokens import create_token, list_tokens, revoke_tokens
from agentorch_cli.handlers.votes import (
    cast_vote,
    close_proposal,
    get_decision,
    get_history,
    list_decisions,
    list_reliabilities,
    open_proposal,
)

__all__ = ["HANDLERS", "Context", "Handler", "opened"]

HANDLERS: dict[str, Handler] = {
    "schema.apply": apply_schema,
    "agent.register": register_agents,
    "agent.list": list_agents,
    "agent.get": get_agent,
    "agent.remove": remove_agents,
    "agent.pause": pause_agents,
    "agent.drain": drain_agents,
    "agent.resume": resume_agents,
    "task.submit": submit_tasks,
    "task.list": list_tasks,
    "task.match": match_tasks,
    "task.get": get_task,
    "task.wait": wait_for_tasks,
    "task.tally": tally_tasks,
    "task.cancel": cancel_tasks,
    "task.retry": retry_tasks,
    "task.depend": depend_on,
    "task.why": why_task,
    "task.plan": plan_tasks,
    "task.graph": graph_of_task,
    "task.timeline": timeline_of_task,
    "deadlock.list": list_deadlocks,
    "deadlock.get": get_deadlock,
    "deadlock.check": check_deadlocks,
    "deadlock.resolve": resolve_deadlocks,
    "budget.set": set_budget,
    "budget.list": list_budgets,
    "budget.get": get_budget,
    "budget.remove": remove_budgets,
    "schedule.add": add_schedule,
    "schedule.list": list_schedules,
    "schedule.get": get_schedule,
    "schedule.pause": pause_schedules,
    "schedule.resume": resume_schedules,
    "schedule.remove": remove_schedules,
    "schedule.run": run_schedule,
    "limit.set": set_limit,
    "limit.list": list_limits,
    "limit.remove": remove_limits,
    "event.list": list_events,
    "consensus.list": list_decisions,
    "consensus.get": get_decision,
    "consensus.open": open_proposal,
    "consensus.vote": cast_vote,
    "consensus.close": close_proposal,
    "consensus.history": get_history,
    "reliability.list": list_reliabilities,
    "outcome.say": say_outcome,
    "outcome.say_many": say_outcomes,
    "db.status": get_database,
    "db.backup": back_up_database,
    "db.restore": restore_database,
    "history.prune": prune_history,
    "node.list": list_nodes,
    "status.get": get_status,
    "id.resolve": resolve_ids,
    "token.create": create_token,
    "token.list": list_tokens,
    "token.revoke": revoke_tokens,
}


@contextlib.asynccontextmanager
async def opened(context: Context) -> AsyncIterator[Context]:
    """The context, closed at the end."""
    try:
        yield context
    finally:
        await context.close()
