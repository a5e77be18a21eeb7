"""`agentorch consensus`: votes, how they came out, and what made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli import lists
from agentorch_cli.cli.help import noun, verb
from agentorch_cli.cli.options import json_or_text
from agentorch_cli.cli.replay import replay_votes
from agentorch_cli.cli.session import Part, Session
from agentorch_cli.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from agentorch_cli.cli.tables import Page

app = noun("""$ agentorch consensus list

Votes: what was decided, how sure that is, and what made it.""")

DecisionId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the vote, or of its task.", show_default=False)
]


@verb(app, "list")
def list_decisions(
    ctx: typer.Context,
    status: lists.Status = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="ID", help="Only votes in which it may vote.")
    ] = None,
    capability: Annotated[
        str | None, typer.Option("-c", "--capability", metavar="CAP", help="Only votes of this capability.")
    ] = None,
    label: lists.Labels = None,
    since: lists.Since = None,
    until: lists.Until = None,
    sort: lists.Sort = None,
    limit: lists.Limit = 50,
    cursor: lists.Cursor = None,
) -> None:
    """List votes, newest first.

    $ agentorch consensus list --limit 10
    $ agentorch consensus list --status failed --since 1d

    They are pending, reached or failed. --label is that of the task, --since and --until are about when
    a vote was opened. It sorts by created, decided, confidence, votes or status.
    """
    session = Session.of(ctx)
    given = {
        "status": lists.states(status, ("pending", "reached", "failed")),
        "agent": agent,
        "capability": capability,
        "label": lists.labels(label),
        **lists.times(since, until),
        **lists.page_of(limit, sort, cursor),
    }
    decisions = session.ask("consensus.list", **{key: one for key, one in given.items() if one is not None})

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.DECISIONS, decisions)

    ids = [decision.decision_id for decision in decisions]
    way = "agentorch consensus open asks for one, and so do tasks with requires_consensus"
    session.show(decisions, draw, ids, lists.nothing(given, "votes", way))
    lists.tell_more(session, decisions, limit)


@verb(app, "show")
def show_decision(ctx: typer.Context, decision_id: DecisionId) -> None:
    """Show a vote: its rule, its ballots, its answer, and how sure it is.

    $ agentorch consensus show 019a8f2e-7b1c-7d10-a3f4-52c8e09b1d6f
    """
    session = Session.of(ctx)
    decision = session.ask("consensus.get", decision_id=Part("vote", decision_id))
    session.show(decision, lambda page: _draw_decision(page, decision), [decision.decision_id])


@verb(app, "open")
def open_vote(
    ctx: typer.Context,
    topic: Annotated[str, typer.Option("--topic", metavar="TEXT", help="What it is about, in a few words.")],
    question: Annotated[
        str | None, typer.Option("--question", metavar="TEXT", help="What is asked: text, or JSON.")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="TEXT", help="An answer to choose; repeat. Without it answers are open."
        ),
    ] = None,
    voters: Annotated[
        str | None,
        typer.Option("--voters", metavar="NAMES", help="Who may vote, with commas: agents, or people."),
    ] = None,
    capability: Annotated[
        str | None,
        typer.Option("--capability", metavar="NAME", help="Or: all registered agents that have this."),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            "--rule", metavar="RULE", help="majority, unanimous, schulze, … Without it supermajority."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="SHARE", help="For supermajority: 0.66 of the voters."),
    ] = None,
    quorum: Annotated[
        int | None,
        typer.Option("--quorum", metavar="N", min=1, help="For quorum: equal votes that it takes."),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline", metavar="TIME", help='"10m", "2h", or a time such as 2030-01-31T12:00:00Z.'
        ),
    ] = None,
    opened_by: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who asks.")] = None,
) -> None:
    """Ask a question, to be voted on by agents and people.

    $ agentorch consensus open --topic deploy --option yes --option no --voters ada,grace --deadline 10m

    Connected agents are asked at once, others when they connect; people vote with `consensus vote`.
    The vote ends as soon as no ballot can change it, or at its deadline.
    """
    session = Session.of(ctx)
    if voters and capability:
        raise UsageError("--voters and --capability are both there: one of them says who may vote")
    moment, seconds = _deadline(deadline)
    decision = session.ask(
        "consensus.open",
        topic=topic,
        question=json_or_text(question) if question is not None else None,
        options=_vote_options(
            session,
            rule=rule,
            threshold=threshold,
            quorum=quorum,
            options=[json_or_text(one) for one in options or ()],
        ),
        voters=[name.strip() for name in (voters or "").split(",") if name.strip()],
        capability=capability,
        deadline=moment,
        deadline_seconds=seconds,
        opened_by=opened_by,
    )
    session.show(decision, lambda page: _draw_decision(page, decision), [decision.decision_id])
    if session.format == "table":
        session.say(f"People vote with: agentorch consensus vote {decision.decision_id} --as NAME --option …")


def _vote_options(session: Session, **given: Any) -> dict[str, Any]:
    """What the command line says about counting, checked."""
    from agentorch_cli.core.hints import did_you_mean
    from agentorch_cli.core.vote import OPTION_RULES, Rule

    rule = given["rule"] or ("quorum" if given["quorum"] is not None else "supermajority")
    if rule not in list(Rule):
        raise UsageError(
            f'"{rule}" is no rule{did_you_mean(rule, [str(one) for one in Rule])}',
            hint=f"One of {', '.join(Rule)}.",
        )
    if rule in OPTION_RULES and len(given["options"]) < 2:
        raise UsageError(f"{rule} needs at least two of --option")
    if rule == Rule.QUORUM and given["quorum"] is None:
        raise UsageError("quorum needs the number: --quorum 3")
    options = {key: value for key, value in given.items() if value not in (None, [])}
    if rule == Rule.SUPERMAJORITY:
        options.setdefault("threshold", session.settings.consensus.threshold)
    return {**options, "rule": rule}


def _deadline(text: str | None) -> tuple[datetime | None, float | None]:
    """A moment, or seconds from now on the database's clock."""
    from datetime import UTC, datetime

    from agentorch_cli.core.durations import parse_duration

    if text is None:
        return None, None
    try:
        if "-" in text:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                raise UsageError(f'--deadline "{text}" needs a time zone, as in 2030-01-31T12:00:00Z')
            return moment.astimezone(UTC), None
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f'--deadline "{text}" {error}') from error
    if seconds <= 0:
        raise UsageError(f'--deadline "{text}" must be longer than 0 seconds')
    return None, seconds


@verb(app, "vote")
def cast_vote(
    ctx: typer.Context,
    decision_id: DecisionId,
    voter: Annotated[str, typer.Option("--as", metavar="NAME", help="Who votes.")],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "--vote", metavar="ANSWER", help="The answer; several only where that is approval."
        ),
    ] = None,
    rank: Annotated[
        str | None, typer.Option("--rank", metavar="A,B,C", help="Options, best first, for ranked rules.")
    ] = None,
    is_abstaining: Annotated[bool, typer.Option("--abstain", help="Take part without an answer.")] = False,
    confidence: Annotated[
        float | None, typer.Option("--confidence", metavar="P", min=0, max=1, help="How sure you are.")
    ] = None,
) -> None:
    """Vote on an open question, once.

    $ agentorch consensus vote 019a8f2e-7b1c-7d10-a3f4-52c8e09b1d6f --as ada --option yes
    $ agentorch consensus vote 019a8f2e-7b1c-7d10-a3f4-52c8e09b1d6f --as ada --rank tea,coffee,water
    """
    session = Session.of(ctx)
    if [bool(option), rank is not None, is_abstaining].count(True) != 1:
        raise UsageError("say one of --option, --rank and --abstain")
    value: Any = None
    if rank is not None:
        value = [json_or_text(one.strip()) for one in rank.split(",") if one.strip()]
    elif option:
        value = json_or_text(option[0]) if len(option) == 1 else [json_or_text(one) for one in option]
    counted = session.ask(
        "consensus.vote",
        decision_id=Part("vote", decision_id),
        agent_id=voter,
        vote=value,
        confidence=confidence,
        abstain=is_abstaining,
    )
    session.show(counted, lambda page: page.line(f"{counted.agent_id} has voted."), [counted.decision_id])
    if counted.is_closed:
        session.say(f"That decided it: agentorch consensus show {counted.decision_id}")


@verb(app, "close")
def close_vote(
    ctx: typer.Context,
    decision_id: DecisionId,
    closed_by: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who closes it.")] = None,
) -> None:
    """End a question now, with the votes that are there.

    $ agentorch consensus close 019a8f2e-7b1c-7d10-a3f4-52c8e09b1d6f
    """
    session = Session.of(ctx)
    decision = session.ask("consensus.close", decision_id=Part("vote", decision_id), closed_by=closed_by)
    session.show(decision, lambda page: _draw_decision(page, decision), [decision.decision_id])


@verb(app, "reliability")
def list_reliabilities(
    ctx: typer.Context,
    agent: Annotated[str | None, typer.Option("--agent", metavar="ID", help="Only this agent.")] = None,
    capability: Annotated[
        str | None, typer.Option("--capability", metavar="NAME", help="Only this capability.")
    ] = None,
) -> None:
    """How often agents are right, by capability: what weighted votes go by.

    $ agentorch consensus reliability --capability check_facts
    """
    session = Session.of(ctx)
    found = session.ask("reliability.list", agent_id=agent, capability=capability)
    found.sort(key=lambda one: (one.capability, -one.estimate, one.agent_id))

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.RELIABILITIES, found)

    session.show(found, draw, [one.agent_id for one in found], "No agent has voted yet.")


def _draw_decision(page: Page, decision: Any) -> None:
    from agentorch_cli.cli import story

    story.draw_decision(page, decision)


verb(app, "replay")(replay_votes)
