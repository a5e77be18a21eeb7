"""`agentorch chaos`: the proof on your machine that nothing is lost, whatever dies."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentorch_cli.cli.help import single
from agentorch_cli.cli.session import Session
from agentorch_cli.errors import Conflict, ProofFailed

if TYPE_CHECKING:
    from agentorch_cli.chaos.trial import Tell, Verdict
    from agentorch_cli.cli.progress import Progress
    from agentorch_cli.cli.tables import Page


def chaos(
    ctx: typer.Context,
    tasks: Annotated[
        int, typer.Option("--tasks", metavar="N", min=1, max=10_000_000, help="How many tasks.")
    ] = 2_000,
    kills: Annotated[
        int, typer.Option("--kills", metavar="K", min=0, max=10_000, help="How often something is broken.")
    ] = 10,
    agents: Annotated[
        int, typer.Option("--agents", metavar="N", min=2, max=200, help="How many agents.")
    ] = 8,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="The same tasks and faults as another time.")
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(
            "--within",
            metavar="SECONDS",
            min=0.1,
            help="Fail, too, if a first assignment came later than this after the database answered.",
        ),
    ] = None,
    should_keep: Annotated[
        bool, typer.Option("--keep", help="Keep the folder with database, journals and logs.")
    ] = False,
) -> None:
    """Prove that nothing is lost: run a fleet, kill it at random, and check what is left.

    $ agentorch chaos --tasks 500 --kills 3
    $ agentorch chaos --tasks 100000 --kills 50 --seed 7 --json

    Serve, agents, clients and PostgreSQL run as processes of their own in a fresh folder, and are killed,
    stopped and cut off. Everybody keeps a journal. Afterwards a checker that shares no code with the engine
    holds journals and tables against each other. The exit code is 3 if a promise was broken.
    """
    import secrets

    from agentorch_cli.cli.progress import Progress

    session = Session.of(ctx)
    number = secrets.randbelow(10**6) if seed is None else seed
    with _folder(session, should_keep) as folder:
        from agentorch_cli.chaos.trial import Plan, Trial

        session.say(f"seed {number}, in {folder}")
        plan = Plan(tasks=tasks, kills=kills, agents=agents, seed=number)
        with Progress(session, "Tasks ended", tasks) as progress:
            verdict = session.run(Trial(plan, folder, _teller(progress)).run())
    document = verdict.to_json() | ({"folder": str(folder)} if should_keep or session.data_dir else {})
    session.show(document, lambda page: _draw(page, verdict), [number])
    _refuse(verdict, within)


app = single(chaos)


@contextlib.contextmanager
def _folder(session: Session, should_keep: bool) -> Iterator[Path]:
    """A folder of the trial's own: a new one, or the --data-dir, which must be empty and is kept."""
    if session.data_dir is not None:
        folder = Path(session.data_dir).absolute()
        if folder.is_dir() and any(folder.iterdir()):
            raise Conflict(f"{folder} is not empty", hint="A trial wants a folder of its own.")
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    elif should_keep:
        yield Path(tempfile.mkdtemp(prefix="agentorch-chaos-"))
    else:
        with tempfile.TemporaryDirectory(prefix="agentorch-chaos-", ignore_cleanup_errors=True) as name:
            yield Path(name)


def _teller(progress: Progress) -> Tell:
    def tell(done: int, wanted: int, news: str | None) -> None:
        progress.update(done, total=wanted)
        if news is not None:
            progress.say(f"{done:>9,} of {wanted:,}  {news}")

    return tell


def _draw(page: Page, verdict: Verdict) -> None:
    from agentorch_cli.chaos.checker import RULES
    from agentorch_cli.cli.tables import Column

    rows = [(name, rule, verdict.faults.get(name)) for name, rule in RULES.items()]

    def standing(row: Any) -> str:
        return "not looked at" if row[2] is None else f"{len(row[2])} faults" if row[2] else "holds"

    page.table(
        [
            Column("RULE", lambda row, look: look.text(row[0], "bold")),
            Column("VERDICT", lambda row, look: look.text(standing(row), "red" if row[2] else "green")),
            Column("WHAT IT SAYS", lambda row, look: look.text(_sentence(row[1])), 1, is_id=True, fold_at=30),
        ],
        rows,
    )
    for name, _, found in rows:
        for fault in (found or [])[:5]:
            page.line(page.look.text(f"  {name}: {fault}", "red"))
    page.gap()
    outcomes = ", ".join(f"{number:,} {status}" for status, number in verdict.outcomes.items())
    facts = {
        "tasks": f"{verdict.stored:,} with sub-tasks: {outcomes}",
        "attempts": f"{verdict.attempts:,}",
        "kills": str(len(verdict.outages)),
        "lost, doubled, stuck": f"{verdict.lost}, {verdict.doubled}, {verdict.stuck}",
        "longest recovery": f"{verdict.longest_recovery:.2f} s to the first assignment",
        "time": f"{verdict.seconds:.0f} s",
        "seed": str(verdict.plan.seed),
    }
    page.pairs([(name, page.look.text(fact)) for name, fact in facts.items()])


def _sentence(rule: Any) -> str:
    """The first sentence of what a rule says of itself."""
    return " ".join((rule.__doc__ or "").split()).partition(". ")[0].rstrip(".")


def _refuse(verdict: Verdict, within: float | None = None) -> None:
    """Raises ProofFailed unless everything holds, and work went on within so many seconds."""
    if verdict.trouble is not None:
        raise ProofFailed(f"the trial came to no end: {verdict.trouble}")
    broken = [name for name, found in verdict.faults.items() if found]
    if broken:
        raise ProofFailed(
            f"broken: {', '.join(broken)}", hint=f"--seed {verdict.plan.seed} --keep keeps everything."
        )
    if within is not None and verdict.longest_recovery > within:
        raise ProofFailed(
            f"after {verdict.slowest.what} it took {verdict.longest_recovery:.2f} s until work went on,"
            f" not {within:g} s"
        )
