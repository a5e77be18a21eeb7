"""When work was done and when it waited, and what made it last."""

from __future__ import annotations

from agentorch_cli.core.timeline import Stretch, Try, Work, longest_chain, stretches

NOW = 100.0


def short(one: Stretch) -> tuple[object, ...]:
    return one.status, one.lane, one.start, one.end, one.is_open


def done(task_id: str, created: float, ended: float, *needs: str, parent_id: str | None = None) -> Work:
    return Work(task_id, "completed", created, ended, needs, parent_id)


def tried(
    task_id: str, began: float, ended: float | None, status: str = "completed", attempt: int = 1
) -> Try:
    return Try(task_id, attempt, "a", status, began, ended)


def test_a_task_waits_for_its_agent_then_works() -> None:
    found = stretches([done("a", 0, 5)], [tried("a", 2, 5)], NOW)

    assert [short(one) for one in found] == [("pending", 0, 0, 2, False), ("completed", 0, 2, 5, False)]


def test_the_wait_for_an_agent_begins_when_the_last_dependency_is_done() -> None:
    works = [done("a", 0, 5), done("b", 0, 9, "a")]

    found = stretches(works, [tried("a", 0, 5), tried("b", 6, 9)], NOW)

    assert [short(one) for one in found if one.task_id == "b"] == [
        ("pending", 0, 5, 6, False),
        ("completed", 0, 6, 9, False),
    ]


def test_a_retry_is_a_bar_of_its_own_with_the_wait_between() -> None:
    tries = [tried("a", 0, 2, "failed"), tried("a", 5, 7, attempt=2)]

    found = stretches([done("a", 0, 7)], tries, NOW)

    assert [short(one) for one in found] == [
        ("failed", 0, 0, 2, False),
        ("pending", 0, 2, 5, False),
        ("completed", 0, 5, 7, False),
    ]


def test_voters_at_the_same_time_have_lanes_and_a_free_lane_is_used_again() -> None:
    tries = [tried("a", 0, 4), tried("a", 1, 2, attempt=2), tried("a", 3, 6, attempt=3)]

    found = stretches([done("a", 0, 6)], tries, NOW)

    assert [(one.attempt, one.lane) for one in found] == [(1, 0), (2, 1), (3, 1)]


def test_what_goes_on_ends_now_and_is_open() -> None:
    works = [
        Work("runs", "running", 0, None),
        Work("waits", "pending", 10, None),
        Work("held", "blocked", 20, None, ("runs",)),
    ]

    found = stretches(works, [tried("runs", 0, None, "accepted")], NOW)

    assert [short(one) for one in found] == [
        ("accepted", 0, 0, NOW, True),
        ("pending", 0, 10, NOW, True),
        ("blocked", 0, 20, NOW, True),
    ]


def test_a_task_between_two_attempts_waits_until_now() -> None:
    found = stretches([Work("a", "pending", 0, None)], [tried("a", 0, 3, "failed")], NOW)

    assert short(found[-1]) == ("pending", 0, 3, NOW, True)


def test_a_task_that_never_began_has_one_stretch_until_its_end() -> None:
    found = stretches([Work("a", "skipped", 5, 8, ("x",))], [], NOW)

    assert [short(one) for one in found] == [("blocked", 0, 5, 8, False)]


def test_tasks_come_in_the_order_in_which_they_were_begun_and_waiting_ones_last() -> None:
    works = [Work("waits", "pending", 0, None), done("late", 0, 9), done("early", 0, 3)]

    found = stretches(works, [tried("late", 5, 9), tried("early", 1, 3)], NOW)

    assert list(dict.fromkeys(one.task_id for one in found)) == ["early", "late", "waits"]


def test_the_longest_chain_goes_back_over_what_ended_last() -> None:
    works = [done("a", 0, 2), done("b", 0, 6), done("c", 0, 8, "a", "b"), done("aside", 0, 7, "a")]
    tries = [tried("a", 0, 2), tried("b", 0, 6), tried("c", 6, 8), tried("aside", 2, 7)]

    assert longest_chain(works, tries, NOW) == ["b", "c"]


def test_the_longest_chain_goes_through_sub_tasks() -> None:
    works = [
        done("first", 0, 2),
        done("parent", 0, 9, "first"),
        done("child", 3, 8, parent_id="parent"),
        done("quick child", 3, 4, parent_id="parent"),
    ]
    tries = [tried("first", 0, 2), tried("parent", 2, 9), tried("child", 3, 8), tried("quick child", 3, 4)]

    assert longest_chain(works, tries, NOW) == ["first", "parent", "child"]


def test_work_that_goes_on_is_what_lasts_longest() -> None:
    works = [done("a", 0, 50), Work("b", "running", 0, None)]

    assert longest_chain(works, [tried("a", 0, 50), tried("b", 1, None, "accepted")], NOW) == ["b"]


def test_a_circle_of_waits_ends_the_chain() -> None:
    works = [done("a", 0, 5, "b"), done("b", 0, 6, "a")]

    assert longest_chain(works, [tried("a", 0, 5), tried("b", 1, 6)], NOW) == ["a", "b"]


def test_nothing_that_was_begun_makes_no_chain() -> None:
    assert longest_chain([Work("a", "pending", 0, None)], [], NOW) == []
