"""`agentorch task`: submit tasks, look at them, wait for them, call them off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli import lists, pictures
from agentorch_cli.cli.consent import Yes
from agentorch_cli.cli.help import Drawing, noun, verb
from agentorch_cli.cli.session import Part, Session, whole_ids
from agentorch_cli.errors import Conflict, InvalidTask, NotFound, Partial, UsageError, command, fixed_by

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.client import Client
    from agentorch_cli.core.goal import Goal
    from agentorch_cli.views import ChangeReply, PlanView, TaskView

MOST_ROWS = 40
"""Rows of results on a terminal; of more tasks, those that did not complete are shown first."""

app = noun("""$ agentorch task submit task.toml --wait

Submit tasks, follow them, cancel, retry.""")

Ids = Annotated[list[str], typer.Argument(metavar="ID…", help="Ids of tasks.", show_default=False)]
SomeIds = Annotated[
    list[str] | None, typer.Argument(metavar="[ID…]", help="Ids of tasks.", show_default=False)
]
Timeout = Annotated[
    str | None,
    typer.Option("--timeout", metavar="TIME", help='Give up waiting after this ("30s", "5m"): exit code 6.'),
]
WaitFor = Annotated[
    str | None,
    typer.Option(
        "--for", metavar="STATE", help="running, completed, failed, cancelled, skipped, or final: any end."
    ),
]
WaitAny = Annotated[bool, typer.Option("--any", help="Return once one of them is there.")]
WaitAll = Annotated[bool, typer.Option("--all", help="Return once all of them are there; so it is anyway.")]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="EXPR", help='Only those that fit: "status=failed and age>1h".'),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show which tasks are meant, change nothing.")]


@verb(app, "submit")
def submit(
    ctx: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…", help='Task files, directories of them, or "-" for stdin.', show_default=False
        ),
    ],
    should_wait: Annotated[bool, typer.Option("--wait", help="Wait for the results and show them.")] = False,
    goal: WaitFor = None,
    is_any: WaitAny = False,
    is_all: WaitAll = False,
    timeout: Timeout = None,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and show the plan, submit nothing.")
    ] = False,
    allow_forward: Annotated[
        bool,
        typer.Option(
            "--allow-forward", help="Tasks may depend on ids that do not exist yet, and wait for them."
        ),
    ] = False,
    budget_usd: Annotated[
        float | None,
        typer.Option(
            "--budget-usd", metavar="USD", min=1e-9, max=1e9, help="The most that they may cost together."
        ),
    ] = None,
    budget_tokens: Annotated[
        int | None,
        typer.Option(
            "--budget-tokens",
            metavar="N",
            min=1,
            max=10**15,
            help="The most tokens that they may use together.",
        ),
    ] = None,
    traceparent: Annotated[
        str | None,
        typer.Option(
            "--traceparent", metavar="TEXT", help="The span that they are a part of; else TRACEPARENT's."
        ),
    ] = None,
) -> None:
    """Submit the tasks of files (TOML, JSON or JSONL): all of them, or none.

    $ agentorch task submit task.toml --wait
    $ echo '{"type": "count", "data": {"text": "one two"}}' | agentorch task submit -
    $ agentorch task submit task.toml --budget-usd 2.50

    Tasks of several files are one submission and may depend on each other by name.
    With --wait the exit code is 3 if a task fails. --for, --any, --all and --timeout are those of
    agentorch task wait.
    """
    from agentorch_cli.cli.files import collecting_less_often, read_submission
    from agentorch_cli.cli.progress import Progress

    ctx.with_resource(collecting_less_often())
    session = Session.of(ctx)
    if not should_wait and (goal or is_any or is_all or timeout):
        raise UsageError(
            "--for, --any, --all and --timeout are for --wait", hint=f"{ctx.command_path} --help"
        )
    wanted = _goal(goal, is_any=is_any, is_all=is_all)
    seconds = _seconds(timeout)
    with Progress(session, "Reading") as progress:
        plan = read_submission(files, session.settings, begin=progress.begin)
    budget = dict(plan.budget or {})
    if budget_usd is not None:
        budget["cost_usd"] = budget_usd
    if budget_tokens is not None:
        budget["tokens"] = budget_tokens
    span = _traceparent(traceparent)
    if is_dry_run:
        from agentorch_cli.cli.setup import has_database

        can_ask = session.settings.is_remote or has_database(session.settings)
        found = session.ask("task.plan", tasks=plan.tasks) if can_ask else None
        if found is not None and not allow_forward:
            plan.refuse_unknown(found.missing)
        _show_plan(session, plan, found)
        return

    async def work() -> Any:
        async with session.connect(is_patient=should_wait) as client:
            asked: dict[str, Any] = {"allow_forward": True} if allow_forward else {}
            if budget:
                asked["budget"] = budget
            if span is not None:
                asked["traceparent"] = span
            try:
                with Progress(session, "Storing tasks", len(plan.tasks)):
                    reply = await client.call("task.submit", tasks=plan.tasks, **asked)
            except NotFound as error:
                plan.refuse_unknown(error.details.get("missing", ()))
                raise
            except InvalidTask as error:
                with fixed_by("explain", "task.deadline"):
                    plan.refuse_late(frozenset(error.details.get("late", ())))
                raise
            for warning in reply.warnings:
                session.say(f"warning: {warning}")
            if not should_wait:
                if session.format == "table" and not session.is_quiet and not client.is_remote:
                    await _tell_if_nobody_serves(session, client)
                return reply
            from agentorch_cli.cli.follow import follow

            ids = [task.task_id for task in reply.tasks]
            return await follow(client, ids, reply.submission_id, seconds, session, wanted, is_any=is_any)

    answer = session.run(work())
    if should_wait:
        _show_results(session, answer, wanted, is_any=is_any)
    else:
        show_submitted(session, answer)


async def _tell_if_nobody_serves(session: Session, client: Client) -> None:
    """Without --wait nothing else would say that the tasks lie there until an engine comes."""
    if not any(node.is_live for node in await client.call("node.list")):
        session.say(
            f"warning: no serve is running on {session.place}, so nothing moves: run agentorch serve, or"
            " agentorch up"
        )


def _traceparent(given: str | None) -> str | None:
    """The span that was named; a variable that names none is as good as not there. Raises UsageError."""
    import os

    from agentorch_cli.core.tracing import parse_traceparent

    text = given or os.environ.get("TRACEPARENT")
    if not text:
        return None
    try:
        parse_traceparent(text)
    except ValueError as error:
        if given:
            raise UsageError(f"--traceparent {error}") from None
        return None
    return text


@verb(app, "validate")
def validate(
    ctx: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…", help='Task files, directories of them, or "-" for stdin.', show_default=False
        ),
    ],
    allow_forward: Annotated[
        bool,
        typer.Option("--allow-forward", help="Tasks may depend on ids that are not in the files."),
    ] = False,
) -> None:
    """Check task files without a database, and show the plan: layers, names, what each needs.

    $ agentorch task validate task.toml

    All mistakes are told at once, each with file, line and column; with --json as JSON. Exit code 2.
    Ids of tasks that are stored already are unknown here: --allow-forward lets them pass.
    """
    from agentorch_cli.cli.files import read_submission

    session = Session.of(ctx)
    plan = read_submission(files, session.settings, known=None if allow_forward else ())
    _show_plan(session, plan)


@verb(app, "list")
def list_tasks(
    ctx: typer.Context,
    status: lists.Status = None,
    type: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only this type.")] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="ID", help="Only tasks of this agent.")
    ] = None,
    capabilities: lists.Capabilities = None,
    label: lists.Labels = None,
    submission: Annotated[
        str | None,
        typer.Option("--submission", metavar="ID", help="Only tasks that were submitted together."),
    ] = None,
    pool: Annotated[
        str | None, typer.Option("--pool", metavar="NAME", help="Only tasks of this pool.")
    ] = None,
    where: Where = None,
    since: lists.Since = None,
    until: lists.Until = None,
    sort: lists.Sort = None,
    limit: lists.Limit = 50,
    cursor: lists.Cursor = None,
) -> None:
    """List tasks, newest first.

    $ agentorch task list --status failed
    $ agentorch task list --label team=ml --since 1h --sort -priority
    $ agentorch task list --where 'status=failed and name~"etl-*" and age<2d'

    --since and --until are about when a task was submitted. It sorts by created, started, completed,
    priority, attempts, status, type or name. Each task has the cursor where the list goes on.
    """
    from agentorch_cli.core.model import TaskStatus

    session = Session.of(ctx)
    given = {
        "status": lists.states(status, list(TaskStatus)),
        "type": type,
        "agent": agent,
        "capability": capabilities,
        "label": lists.labels(label),
        "pool": pool,
        "where": _checked(where),
        **lists.times(since, until),
        **lists.page_of(limit, sort, cursor),
    }
    asked = {key: value for key, value in given.items() if value is not None}
    if submission is not None:
        asked["submission_id"] = Part("submission", submission)
    tasks = session.ask("task.list", **asked)
    empty = lists.nothing(asked, "tasks", "agentorch task submit FILE brings some")
    session.show(tasks, lambda page: _draw_tasks(page, tasks), _ids(tasks), empty)
    lists.tell_more(session, tasks, limit)


@verb(app, "show")
def show(
    ctx: typer.Context,
    task_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the task.", show_default=False)],
) -> None:
    """Tell the story of a task: what it is, what happened, what came of it.

    $ agentorch task show 019a8f2e-7b1c-7d10-a3f4-52c8e09b1d6f
    """
    session = Session.of(ctx)
    task = session.ask("task.get", task_id=Part("task", task_id))

    def draw(page: Page) -> None:
        from agentorch_cli.cli import story

        story.draw(page, task)

    session.show(task, draw, [task.task_id])


@verb(app, "wait")
def wait(
    ctx: typer.Context,
    task_ids: Ids,
    goal: WaitFor = None,
    is_any: WaitAny = False,
    is_all: WaitAll = False,
    timeout: Timeout = None,
) -> None:
    """Wait until tasks have ended, and show what came of them.

    $ agentorch task wait nightly-report --timeout 10m
    $ agentorch task wait import-a import-b --any --for running

    Without --for they are to complete. The exit code is 0 if all did (with --any: if one did), 3 if
    that cannot be any more, 6 if the time ran out. --for final is content with any end.
    """
    from agentorch_cli.cli.follow import follow

    session = Session.of(ctx)
    wanted = _goal(goal, is_any=is_any, is_all=is_all)
    seconds = _seconds(timeout)

    async def work() -> list[TaskView]:
        async with session.connect(is_patient=True) as client:
            ids = await whole_ids(client, Part("task", task_ids))
            return await follow(client, ids, None, seconds, session, wanted, is_any=is_any)

    _show_results(session, session.run(work()), wanted, is_any=is_any)


@verb(app, "cancel")
def cancel(
    ctx: typer.Context,
    task_ids: SomeIds = None,
    where: Where = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept with the task.")
    ] = None,
    is_dry_run: DryRun = False,
    is_sure: Yes = False,
) -> None:
    """Call tasks off; agents that work on them are told to stop.

    $ agentorch task cancel nightly-report --reason "wrong input"
    $ agentorch task cancel --where 'status=pending and label.team=ml' --dry-run

    --where means those that have not ended. The exit code is 9 if some could not be cancelled, 8 if
    none could, 7 if there are no such tasks.
    """
    from agentorch_cli.cli.bulk import CANCEL, change

    session = Session.of(ctx)
    change(session, CANCEL, task_ids, _checked(where), is_dry_run, is_sure, reason=reason)


@verb(app, "why")
def why(
    ctx: typer.Context,
    task_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the task.", show_default=False)],
) -> None:
    """Say why a task waits: what it waits for, agent by agent why not, and since when.

    $ agentorch task why nightly-report

    The answer comes from the rules that assign, with a running serve or without one.
    """
    from agentorch_cli.cli import story

    session = Session.of(ctx)
    found = session.ask("task.why", task_id=Part("task", task_id))
    session.show(found, lambda page: story.draw_why(page, found), [found.task_id])


@verb(app, "depend")
def depend(
    ctx: typer.Context,
    task_id: Annotated[str, typer.Argument(metavar="TASK", help="Id of the task.", show_default=False)],
    on: Annotated[
        str,
        typer.Option("--on", metavar="OTHER", help="Id of the task that it waits for.", show_default=False),
    ],
) -> None:
    """Let a task that has not begun wait for another one.

    $ agentorch task depend nightly-report --on nightly-export

    What would close a circle is refused, with the circle: exit code 8.
    """
    session = Session.of(ctx)
    task = session.ask("task.depend", task_id=Part("task", task_id), on=Part("task", on))
    session.show(task, lambda page: _draw_tasks(page, [task]), [task.task_id])


@verb(app, "retry")
def retry(
    ctx: typer.Context,
    task_ids: SomeIds = None,
    where: Where = None,
    is_dry_run: DryRun = False,
    is_sure: Yes = False,
) -> None:
    """Try failed, cancelled or skipped tasks again, from the beginning; of those that wait, ask agents
    again who declined them.

    $ agentorch task retry nightly-report
    $ agentorch task retry --where 'status=failed and completed>1d and error=timed_out' --yes
    """
    from agentorch_cli.cli.bulk import RETRY, change

    change(Session.of(ctx), RETRY, task_ids, _checked(where), is_dry_run, is_sure)


verb(app, "graph", Drawing)(pictures.graph)
verb(app, "timeline", Drawing)(pictures.timeline)


def show_change(session: Session, reply: ChangeReply, done: str) -> None:
    """Show a change of several things.

    Raises Partial, Conflict or NotFound for those that stayed as they were.
    """
    if (server := session.server_shown) is not None and session.format == "table":
        session.say(f"On {server}:")

    def draw(page: Page) -> None:
        for one in reply.changed:
            page.line(page.look.text(one, "bold"), f"  {done}" if page.look.is_terminal else f"\t{done}")

    session.show(reply, draw, reply.changed)
    if not reply.unchanged:
        return
    reasons = [f"{one}: {why}" for one, why in reply.unchanged.items()]
    are_missing = all(why.startswith("there is no such") for why in reply.unchanged.values())
    kind = Partial if reply.changed else NotFound if are_missing else Conflict
    noun, only = session.command.partition(" ")[0], next(iter(reply.unchanged))
    look = command(noun, "list") if are_missing or len(reasons) > 1 else command(noun, "show", only)
    if noun in ("budget", "limit"):
        look = command(noun, "list")
    if len(reasons) == 1 and not reply.changed:
        raise kind(reasons[0], fix=look)
    raise kind(
        f"{len(reasons)} of {len(reasons) + len(reply.changed)} stayed as they were: "
        + "; ".join(reasons[:10]),
        fix=look,
        unchanged=reply.unchanged,
    )


def _seconds(timeout: str | None) -> float | None:
    from agentorch_cli.core.durations import parse_duration

    try:
        return None if timeout is None else parse_duration(timeout)
    except ValueError as error:
        raise UsageError(f'--timeout "{timeout}" {error}') from error


def _goal(word: str | None, *, is_any: bool, is_all: bool) -> Goal:
    """What is waited for. Raises UsageError."""
    from agentorch_cli.core.goal import Goal

    if is_any and is_all:
        raise UsageError("--any and --all are both there: one of them says when the wait is over")
    if word is None:
        return Goal.COMPLETED
    lists.states([word], list(Goal), "state to wait for")
    return Goal(word)


def _checked(where: str | None) -> str | None:
    """An expression that can be read: a mistake is told before anything is started. Raises UsageError."""
    if where is not None:
        from agentorch_cli.core.where import parse_where
        from agentorch_cli.store.listings import TASKS

        parse_where(where, TASKS.fields)
    return where


def _ids(tasks: list[TaskView]) -> list[str]:
    return [task.task_id for task in tasks]


def _draw_tasks(page: Page, tasks: list[TaskView]) -> None:
    from agentorch_cli.cli import columns

    page.table(columns.TASKS, tasks)


def _show_results(
    session: Session, tasks: list[TaskView], goal: Goal | None = None, *, is_any: bool = False
) -> None:
    """The results, and by the exit code whether all is well."""
    from agentorch_cli.cli.follow import check_outcomes

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        shown = tasks
        if page.look.is_terminal and len(tasks) > MOST_ROWS:
            shown = sorted(tasks, key=lambda task: task.status == "completed")[:MOST_ROWS]
        page.table(columns.RESULTS, shown)
        if len(shown) < len(tasks):
            page.line(
                f"… and {len(tasks) - len(shown):,} more; agentorch task list --limit {len(tasks)} shows all"
            )

    session.show(tasks, draw, _ids(tasks))
    check_outcomes(tasks, goal, is_any=is_any)


def show_submitted(session: Session, reply: Any) -> None:
    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        shown = reply.tasks[:MOST_ROWS] if page.look.is_terminal else reply.tasks
        page.table(columns.SUBMITTED, shown)
        if len(shown) < len(reply.tasks):
            page.line(f"… and {len(reply.tasks) - len(shown):,} more")

    session.show(reply, draw, [task.task_id for task in reply.tasks])
    if session.format == "table" and reply.tasks:
        is_one = len(reply.tasks) == 1
        look = ("wait", reply.tasks[0].task_id) if is_one else ("list", "--submission", reply.submission_id)
        session.say(f"Submitted {len(reply.tasks):,}. To see what comes of it:")
        session.say(f"  {command('task', *look)}")


def _show_plan(session: Session, plan: Any, fleet: PlanView | None = None) -> None:
    """What would be submitted, layer by layer; with the registered fleet, who could do it."""
    layer_of = {task_id: number for number, layer in enumerate(plan.layers(), 1) for task_id in layer}
    rows = [
        {
            "task_id": task.task_id,
            "name": task.name,
            "type": task.type,
            "layer": layer_of[task.task_id],
            "depends_on": [task.dependency_names.get(one, one) for one in task.depends_on],
            "required_capabilities": list(task.required_capabilities),
            **(
                {"agents": fleet.agents.get(task.task_id, []), "never": fleet.never.get(task.task_id)}
                if fleet is not None
                else {}
            ),
        }
        for task in plan.tasks
    ]
    rows.sort(key=lambda row: int(row["layer"]))

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.PLANNED if fleet is None else columns.PLANNED_WITH_AGENTS, rows)

    session.show(rows, draw, [row["task_id"] for row in rows])
    if session.format == "table":
        layers = max(layer_of.values())
        tasks = f"{len(rows):,} task{'' if len(rows) == 1 else 's'}"
        for row in [row for row in rows if row.get("never")][:MOST_ROWS]:
            name = row["name"] or row["task_id"]
            session.say(f"warning: {name} cannot run with this fleet: {row['never']}")
        session.say(f"{tasks} in {layers} layer{'' if layers == 1 else 's'}; nothing was submitted.")
