"""Operations on the schema."""

from __future__ import annotations

from agentorch_cli import views
from agentorch_cli.handlers.context import Context
from agentorch_cli.store.migrations import newest_version


async def apply_schema(context: Context, check: bool = False) -> views.SchemaView:
    """Create or upgrade the schema; `check`: only say how it stands."""
    wanted = newest_version()
    applied = [] if check else await context.db.migrate()
    current = await context.db.schema_version()
    return views.SchemaView(current=current, wanted=wanted, applied=applied, is_up_to_date=current == wanted)
