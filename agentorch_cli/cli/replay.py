"""`agentorch consensus replay`: what another rule would have done with recorded votes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.session import Session
from agentorch_cli.errors import InvalidFile, InvalidTask, NotFound, UsageError, fixed_by

if TYPE_CHECKING:
    from agentorch_cli.cli.tables import Page
    from agentorch_cli.core.equivalence import Equivalence
    from agentorch_cli.core.replay import Votes
    from agentorch_cli.core.vote import Policy

COMPARED = ("plurality", "supermajority", "adaptive", "weighted")
"""The rules that are compared where none is named."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is replayed."""

    votes: Votes
    truth: dict[str, str]
    in_order: bool
    """It is a history: the order of its tasks means something."""
    electorates: dict[str, list[str]] = field(default_factory=dict)
    """Of a history: who had a vote, asked or not."""


def replay_votes(
    ctx: typer.Context,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="FILE", help="CSV with task,worker,label[,raw].")
    ] = None,
    truth: Annotated[
        str | None, typer.Option("--truth", metavar="FILE", help="CSV with task,truth; may be left out.")
    ] = None,
    from_history: Annotated[
        bool, typer.Option("--from-history", help="Replay the votes that are stored here, in their order.")
    ] = False,
    capability: Annotated[
        str | None,
        typer.Option("--capability", metavar="NAME", help="With --from-history: only this capability."),
    ] = None,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule", metavar="RULE", help="Rule to try; may be repeated. Without it four are compared."
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="SHARE", help="For supermajority.")
    ] = 0.66,
    quorum: Annotated[int, typer.Option("--quorum", metavar="N", min=1, help="For quorum.")] = 2,
    confidence: Annotated[
        float, typer.Option("--confidence", metavar="P", help="Where adaptive and weighted votes stop.")
    ] = 0.95,
    frugal: Annotated[
        bool, typer.Option("--frugal", help="Weighted: stop also when the rest can change nothing.")
    ] = False,
    seats: Annotated[
        int | None,
        typer.Option(
            "--cap",
            "--panel",
            "--seats",
            metavar="N",
            min=1,
            help="Most voters of a task; else all recorded.",
        ),
    ] = None,
    verified: Annotated[
        float,
        typer.Option("--verified", metavar="SHARE", min=0, max=1, help="Share of tasks whose truth is told."),
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Order of arrival and of tasks.")] = 0,
    number: Annotated[bool, typer.Option("--number", help="Answers are numbers: 18 = 18.0 = $18.")] = False,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Fold case, white space, quotes and fences.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="X", min=0, help="Numbers this near are one answer.")
    ] = 0.0,
) -> None:
    """Run recorded votes through the decision code: what would a rule have cost, and been right?

    $ agentorch consensus replay --labels labels.csv --truth truth.csv --rule weighted --verified 0.05
    $ agentorch consensus replay --from-history

    Nothing is asked of any agent. labels.csv has a line for each answer (task,worker,label; an empty
    label is an abstention), truth.csv a line for each task whose right answer is known.

    Of a stored vote the electorate counts as it did then, also who was never asked: a vote that hangs on
    these is not decided, but open. Thresholds and the like are those of this command line.
    """
    session = Session.of(ctx)
    _check_sources(labels, truth, from_history, capability)
    how = _equivalence(number, normalize)
    policies = [
        _policy(
            rule,
            threshold=threshold,
            quorum=quorum,
            confidence=confidence,
            frugal=frugal,
            tolerance=tolerance,
        )
        for rule in rules or COMPARED
    ]
    with fixed_by("consensus", "replay", "--help"):
        recorded = _history(session, capability, how) if from_history else _files(str(labels), truth, how)
    rows = []
    for policy in policies:
        rows.append(_run(session, recorded, policy, seed, verified, seats))

    def draw(page: Page) -> None:
        from agentorch_cli.cli import columns

        page.table(columns.REPLAYED, rows)

    session.show(rows[0] if rules and len(rows) == 1 else rows, draw, [row["rule"] for row in rows])


def _check_sources(labels: str | None, truth: str | None, from_history: bool, capability: str | None) -> None:
    if from_history and (labels or truth):
        raise UsageError("--from-history and --labels are both there: one of them says what to replay")
    if not from_history and not labels:
        raise UsageError(
            "say what to replay",
            hint="--labels FILE for recorded votes, or --from-history for those that are stored here",
        )
    if capability and not from_history:
        raise UsageError("--capability goes with --from-history")


def _equivalence(number: bool, normalize: bool) -> Equivalence | None:
    from agentorch_cli.core.equivalence import Equivalence

    return Equivalence(number=number, normalize=normalize) if number or normalize else None


def _policy(rule: str, **options: Any) -> Policy:
    from agentorch_cli.core.hints import did_you_mean
    from agentorch_cli.core.vote import OPTION_RULES, Policy, Rule

    usable = [str(one) for one in Rule if one not in OPTION_RULES]
    if rule not in usable:
        raise UsageError(
            f'"{rule}" is no rule for recorded answers{did_you_mean(rule, usable)}',
            hint=f"One of {', '.join(usable)}.",
        )
    try:
        return Policy(Rule(rule), **options)
    except InvalidTask as error:
        raise UsageError(error.message.removeprefix("consensus: ")) from error


def _files(labels: str, truth: str | None, how: Equivalence | None) -> Recorded:
    from agentorch_cli.core.replay import read_labels, read_truth

    votes = _read(labels, lambda rows: read_labels(rows, how))
    if not votes:
        raise InvalidFile("holds no votes", where=labels)
    return Recorded(votes, _read(truth, lambda rows: read_truth(rows, how)) if truth else {}, in_order=False)


def _read(name: str, reader: Callable[[Any], Any]) -> Any:
    """A CSV file by its reader. Raises InvalidFile with the place."""
    import csv

    try:
        with open(name, newline="", encoding="utf-8-sig") as file:  # noqa: PTH123  Path.open is no shorter
            return reader(csv.DictReader(file))
    except FileNotFoundError as error:
        raise InvalidFile("does not exist", where=name) from error
    except OSError as error:
        raise InvalidFile(f"cannot be read: {error.strerror}", where=name) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidFile(f"is no CSV in UTF-8: {error}", where=name) from error
    except InvalidFile as error:
        raise InvalidFile(
            error.message,
            where=f"{name}: {error.where}",
            hint="columns: task,worker,label for labels, task,truth for truth",
        ) from error


def _history(session: Session, capability: str | None, how: Equivalence | None) -> Recorded:
    from agentorch_cli.core.replay import read_labels, read_truth

    found = session.ask("consensus.history", capability=capability)
    if not found.labels:
        raise NotFound(
            "there are no stored votes to replay" + (f" for {capability}" if capability else ""),
            fix="agentorch consensus list",
        )
    votes, truth = read_labels(found.labels, how), read_truth(found.truth, how)
    return Recorded(votes, truth, in_order=True, electorates=found.electorates)


def _run(
    session: Session, recorded: Recorded, policy: Policy, seed: int, verified: float, seats: int | None
) -> dict[str, Any]:
    """One rule over the record, as the row that is shown."""
    from agentorch_cli.cli.progress import Progress
    from agentorch_cli.core.replay import replay

    began = time.perf_counter()
    with Progress(session, f"Replaying {policy.rule}", len(recorded.votes)) as progress:
        result = replay(
            recorded.votes,
            recorded.truth,
            policy,
            random.Random(seed),
            verified,
            seats,
            recorded.in_order,
            progress.update,
            recorded.electorates,
        )
    seconds = time.perf_counter() - began
    return {
        "rule": str(policy.rule),
        "tasks": result.tasks,
        "votes_per_task": result.votes_per_task,
        "accuracy": result.accuracy,
        "accuracy_decided": result.accuracy_decided,
        "calibration_error": result.calibration_error,
        "calibrated_on": result.calibrated_on,
        "decided": result.decided,
        "decided_by": dict(result.decided_by),
        "ballots": result.ballots,
        "seed": seed,
        "verified": verified,
        "seconds": round(seconds, 3),
    }
