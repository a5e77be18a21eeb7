"""`agentorch chaos` itself: a short trial holds, and one in which a promise is broken says so."""

from __future__ import annotations

import io
import json
import random
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from long import SEED

from agentorch_cli.chaos.checker import RULES
from agentorch_cli.chaos.injectors import FAULTS, Outage, chosen
from agentorch_cli.chaos.journal import read_folder
from agentorch_cli.chaos.trial import Plan, Trial, Verdict
from agentorch_cli.chaos.workload import Workload
from agentorch_cli.cli import chaos
from agentorch_cli.cli.look import Look
from agentorch_cli.cli.tables import Page
from agentorch_cli.errors import ProofFailed

SHORT = ("--tasks", "250", "--kills", "4", "--agents", "4", "--seed", str(SEED))


def test_a_short_trial_holds(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    done = subprocess.run(
        [sys.executable, "-m", "agentorch_cli", "--json", "--data-dir", str(folder), "chaos", *SHORT],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["holds"], found["seed"], found["kills"]) == (True, SEED, 4)
    assert (found["lost"], found["double_outcomes"], found["stuck"]) == (0, 0, 0)
    assert found["stored"] >= 250
    assert len(found["recoveries"]) == 4
    journals = read_folder(folder / "journals")
    assert {"agent-0", "agent-1", "agent-2", "agent-3", "client-0", "client-1"} == set(journals)
    assert not processes_of(folder), "nothing of it runs any more"


def processes_of(folder: Path) -> list[str]:
    """What is still there of a trial; a process that is ending gets a moment."""
    for _ in range(50):
        lines = subprocess.run(["ps", "axo", "args"], capture_output=True, text=True, check=True).stdout
        found = [line for line in lines.splitlines() if str(folder) in line]
        if not found:
            return []
        time.sleep(0.1)
    return found


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict(Plan(), faults={"ends": ["t1 is running"]}), "ends"),
        (Verdict(Plan(), trouble="nothing has ended for 60 s"), "nothing has ended"),
        (
            Verdict(Plan(), outages=[Outage("serve killed", restored=1.0, answered=2.0, assigned=7.0)]),
            "5.00 s",
        ),
    ],
)
def test_a_broken_promise_is_an_error(verdict: Verdict, said: str) -> None:
    with pytest.raises(ProofFailed, match=said) as caught:
        chaos._refuse(verdict, 3.0)

    assert caught.value.exit_code == 3


def test_a_verdict_without_faults_is_none() -> None:
    chaos._refuse(Verdict(Plan(), faults={"ends": []}, outages=[Outage("x", 1.0, 2.0, 2.0, 3.0)]), 3.0)


def test_what_a_rule_says_is_whole_on_a_narrow_terminal() -> None:
    stream = io.StringIO()
    look = Look(True, False, 80, 24, datetime.now(UTC))

    chaos._draw(Page(stream, look), Verdict(Plan(), faults={name: [] for name in RULES}))

    shown = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).split())
    assert "…" not in shown
    assert all(chaos._sentence(rule).split()[-1] in shown for rule in RULES.values())


def test_tasks_that_agents_add_are_counted_as_wanted_too(tmp_path: Path) -> None:
    told: list[tuple[int, int, str | None]] = []
    trial = Trial(Plan(tasks=300), tmp_path, lambda *news: told.append(news))

    trial._done, trial._stored = 10, 12
    trial._news("early")
    trial._done, trial._stored = 315, 318
    trial._news("checking")

    assert told == [(10, 300, "early"), (315, 318, "checking")]


def test_the_same_seed_gives_the_same_tasks_and_faults() -> None:
    one, other = (list(Workload("client", 7, 500).batches()) for _ in range(2))
    kills, again = (chosen(30, random.Random(7)) for _ in range(2))

    assert one == other
    assert kills == again
    assert list(Workload("client", 8, 500).batches()) != one


def test_a_workload_has_as_many_tasks_as_were_asked_for_and_every_kind_of_story() -> None:
    batches = list(Workload("client", 1, 5_000, batch=200).batches())
    names = [task["name"] for batch in batches for task in batch]

    assert 5_000 <= len(names) == len(set(names)) < 5_300
    tasks = [task for batch in batches for task in batch]
    assert {task.get("consensus", {}).get("rule") for task in tasks} > {"plurality", "majority", "unanimous"}
    assert {task["priority"] for task in tasks} == set(range(11))


def test_every_fault_comes_at_least_once_where_there_are_enough_kills() -> None:
    assert set(chosen(len(FAULTS), random.Random(SEED))) == set(FAULTS)
    assert len(chosen(50, random.Random(SEED))) == 50
