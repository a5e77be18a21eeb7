"""When an agent that keeps failing gets nothing for a while, against a twin that is plain ifs."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agentorch_cli.core.breaker import (
    CLOSED,
    MOVES,
    Breaker,
    Event,
    Outcome,
    Phase,
    Rules,
    after,
    exclusion_seconds,
    moved,
    outcome_of,
)
from agentorch_cli.core.model import AttemptStatus

RULES = Rules(failures=4, tasks=2, backoff=5.0, max_backoff=60.0)


def fail(breaker: Breaker, *tasks: str, rules: Rules = RULES, is_probe: bool = False) -> Breaker:
    for task in tasks:
        breaker = after(breaker, Outcome.BADLY, task, rules, is_probe=is_probe)
    return breaker


# --- what counts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "counts_as"),
    [
        (AttemptStatus.COMPLETED, None, Outcome.WELL),
        (AttemptStatus.FAILED, {"message": "boom"}, Outcome.BADLY),
        (AttemptStatus.FAILED, None, Outcome.BADLY),
        (AttemptStatus.FAILED, {"message": "boom", "retryable": True}, Outcome.BADLY),
        (AttemptStatus.FAILED, {"message": "no such page", "retryable": False}, Outcome.NOTHING),
        (AttemptStatus.TIMED_OUT, {"code": "timeout"}, Outcome.BADLY),
        (AttemptStatus.LOST, {"code": "agent_lost"}, Outcome.BADLY),
        (AttemptStatus.CANCELLED, None, Outcome.NOTHING),
    ],
)
def test_the_end_of_an_attempt_says_something_about_the_agent_or_nothing(
    status: AttemptStatus, error: dict[str, object] | None, counts_as: Outcome
) -> None:
    assert outcome_of(status, error) is counts_as


def test_failures_in_a_row_with_different_tasks_trip() -> None:
    assert fail(CLOSED, "a", "b", "a").phase is Phase.CLOSED
    assert fail(CLOSED, "a", "b", "a", "a") == Breaker(Phase.OPEN, 4, ("a", "b"), 1)


def test_one_poisoned_task_excludes_nobody() -> None:
    assert fail(CLOSED, *["poison"] * 100).phase is Phase.CLOSED


def test_a_success_resets_the_count() -> None:
    almost = fail(CLOSED, "a", "b", "c")

    assert after(almost, Outcome.WELL, "d", RULES, is_probe=False) == CLOSED


def test_work_from_before_the_exclusion_changes_nothing() -> None:
    opened = fail(CLOSED, "a", "b", "c", "d")
    probing = moved(opened, Event.EXPIRE)

    for breaker in (opened, probing):
        for outcome in Outcome:
            assert after(breaker, outcome, "old", RULES, is_probe=False) == breaker


def test_a_probe_that_goes_well_readmits_and_one_that_does_not_doubles_the_wait() -> None:
    probing = moved(fail(CLOSED, "a", "b", "c", "d"), Event.EXPIRE)

    assert after(probing, Outcome.WELL, "e", RULES, is_probe=True) == CLOSED
    again = after(probing, Outcome.BADLY, "e", RULES, is_probe=True)
    assert (again.phase, again.trips, again.failures) == (Phase.OPEN, 2, 5)
    assert after(probing, Outcome.NOTHING, "e", RULES, is_probe=True) == probing
    assert [exclusion_seconds(trips, RULES) for trips in range(1, 7)] == [5, 10, 20, 40, 60, 60]


@pytest.mark.parametrize("trips", [1, 64, 10_000_000])
def test_every_exclusion_has_an_end(trips: int) -> None:
    assert 0 < exclusion_seconds(trips, RULES) <= RULES.max_backoff


def test_a_breaker_that_is_turned_off_excludes_nobody_and_lets_the_excluded_back() -> None:
    off = replace(RULES, enabled=False)
    probing = moved(fail(CLOSED, "a", "b", "c", "d"), Event.EXPIRE)

    assert fail(CLOSED, *"abcdefgh", rules=off) == CLOSED
    assert fail(probing, "e", rules=off) == CLOSED


def test_a_person_can_resume_from_anywhere() -> None:
    assert all((phase, Event.RESUME) in MOVES for phase in Phase)
    assert {MOVES[phase, Event.RESUME] for phase in Phase} == {Phase.CLOSED}


# --- the twin -----------------------------------------------------------------------------------


class Twin:
    """The same in plain words, from the whole list of what happened since the last success."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.failed: list[str] = []
        self.trips = 0
        self.stands = "closed"

    def ended(self, outcome: Outcome, task: str, is_probe: bool) -> None:
        if outcome == "nothing":
            return
        counts = self.stands == "closed" or (self.stands == "probing" and is_probe)
        if not counts:
            return
        if outcome == "well":
            self.failed, self.trips, self.stands = [], 0, "closed"
            return
        self.failed.append(task)
        is_enough = len(self.failed) >= self.rules.failures and len(set(self.failed)) >= self.rules.tasks
        if self.stands == "probing" or is_enough:
            self.stands = "open"
            self.trips += 1

    def expire(self) -> None:
        if self.stands == "open":
            self.stands = "probing"

    def resume(self) -> None:
        self.failed, self.trips, self.stands = [], 0, "closed"


@pytest.mark.parametrize("seed", range(20))
def test_a_random_life_is_that_of_the_twin(seed: int) -> None:
    dice = random.Random(seed)
    rules = Rules(failures=dice.randint(1, 6), tasks=dice.randint(1, 4))
    breaker, twin = CLOSED, Twin(rules)
    seen: set[str] = set()
    for _ in range(600):
        match dice.choices(["end", "expire", "resume"], [20, 3, 0.2])[0]:
            case "end":
                outcome = dice.choices(list(Outcome), [2, 5, 1])[0]
                task, is_probe = f"t{dice.randrange(5)}", dice.random() < 0.5
                breaker = after(breaker, outcome, task, rules, is_probe=is_probe)
                twin.ended(outcome, task, is_probe)
            case "expire":
                if breaker.phase is Phase.OPEN:
                    breaker = moved(breaker, Event.EXPIRE)
                twin.expire()
            case _:
                breaker = moved(breaker, Event.RESUME)
                twin.resume()
        assert (breaker.phase, breaker.failures, breaker.trips) == (
            twin.stands,
            len(twin.failed),
            twin.trips,
        ), seed
        assert len(breaker.tasks) == min(rules.tasks, len(set(twin.failed)))
        seen.add(breaker.phase)

    assert seen == set(Phase)
