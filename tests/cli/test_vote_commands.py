"""`consensus replay`, `consensus open|vote` and `outcome`, as people type them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentorch_cli.views import ChangeReply, DecisionView, HistoryView, OutcomeView, VoteView

DATA = Path(__file__).parent.parent / "data" / "consensus"

GOALS = [
    ("llm_gsm", "adaptive", 6.8, 0.964),
    ("llm_gsm", "weighted", 2.6, 0.965),
    ("crowd_rte", "weighted", 4.9, 0.92),
]


@pytest.mark.parametrize(("name", "rule", "votes", "accuracy"), GOALS)
def test_replay_reaches_the_goals_by_default(
    agentorch: Callable[..., Any], name: str, rule: str, votes: float, accuracy: float
) -> None:
    files = ["--labels", str(DATA / name / "labels.csv"), "--truth", str(DATA / name / "truth.csv")]

    told = json.loads(agentorch("consensus", "replay", *files, "--rule", rule, "--json").out)

    assert told["votes_per_task"] <= votes
    assert told["accuracy"] >= accuracy
    assert told["decided"] == told["tasks"]
    assert 0 <= told["calibration_error"] <= 0.06


def test_replay_without_a_rule_compares_four(agentorch: Callable[..., Any]) -> None:
    folder = DATA / "crowd_rte"

    outcome = agentorch(
        "consensus", "replay", "--labels", f"{folder}/labels.csv", "--truth", f"{folder}/truth.csv"
    )

    rows = [line.split("\t") for line in outcome.out.splitlines()]
    assert [row[0] for row in rows] == ["RULE", "plurality", "supermajority", "adaptive", "weighted"]


def test_replay_reads_the_stored_history(agentorch: Callable[..., Any], desk: Any) -> None:
    labels = [
        {"task": f"t{task}", "worker": worker, "label": "yes"}
        for task in range(3)
        for worker in ("a", "b", "c")
    ]
    truth = [{"task": "t0", "truth": "yes"}, {"task": "t1", "truth": "no"}]
    desk.answers["consensus.history"] = HistoryView(labels=labels, truth=truth)

    told = json.loads(agentorch("consensus", "replay", "--from-history", "--rule", "majority", "--json").out)

    assert (told["tasks"], told["votes_per_task"], told["accuracy"]) == (3, 2.0, 0.5)


def test_replay_of_a_history_counts_who_was_never_asked(agentorch: Callable[..., Any], desk: Any) -> None:
    labels = [{"task": "t", "worker": worker, "label": "yes"} for worker in "ab"]
    desk.answers["consensus.history"] = HistoryView(labels=labels, electorates={"t": [*"abcde"]})

    line = ("consensus", "replay", "--from-history", "--rule", "supermajority", "--json")
    told = json.loads(agentorch(*line).out)

    assert (told["decided"], told["decided_by"], told["ballots"]) == (0, {"open": 1}, 2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("consensus replay", "say what to replay"),
        ("consensus replay --labels x --from-history", "both there"),
        ("consensus replay --labels nowhere.csv", "does not exist"),
        ("consensus replay --labels x --rule wieghted", '(did you mean "weighted"?)'),
        ("consensus replay --labels x --rule supermajority --threshold 2", "threshold must be above 0"),
        ("consensus open --topic t --rule schulze --option a", "needs at least two"),
        ("consensus open --topic t --deadline soon", "--deadline"),
        ("consensus open --topic t --voters a --capability b", "both there"),
        ("consensus vote ID --as a", "say one of --option, --rank and --abstain"),
        ("outcome", "say which task"),
        ("outcome t --right --wrong", "say which task"),
        ("outcome --from nowhere.csv", "does not exist"),
        ("outcome t --from x", "leave the others out"),
    ],
)
def test_wrong_usage_is_explained(agentorch: Callable[..., Any], line: str, said: str) -> None:
    outcome = agentorch(*line.split())

    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


def test_a_file_without_the_columns_is_named_with_its_line(
    agentorch: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text("question,worker,label\n1,a,b\n")

    outcome = agentorch("consensus", "replay", "--labels", "labels.csv")

    assert outcome.code == 2
    assert "labels.csv: line 2" in outcome.err
    assert "'task' is missing" in outcome.err


def decision(**more: Any) -> DecisionView:
    facts = {"decision_id": "d1", "topic": "lunch", "status": "pending", "rule": "majority", "electorate": 3}
    return DecisionView(**(facts | more))


def test_open_asks_with_what_was_typed(agentorch: Callable[..., Any], desk: Any) -> None:
    desk.answers["consensus.open"] = decision()

    agentorch(
        "consensus", "open", "--topic", "lunch", "--option", "soup", "--option", "7",
        "--voters", "ada, grace",
        "--rule", "majority", "--deadline", "10m", "--as", "linus",
    )  # fmt: skip

    _, asked = desk.calls[0]
    assert asked["options"] == {"rule": "majority", "options": ["soup", 7]}
    assert (asked["voters"], asked["deadline_seconds"], asked["opened_by"]) == (
        ["ada", "grace"],
        600.0,
        "linus",
    )


@pytest.mark.parametrize(
    ("words", "vote", "abstain"),
    [
        (["--option", "soup"], "soup", False),
        (["--vote", '{"a": 1}'], {"a": 1}, False),
        (["--option", "a", "--option", "b"], ["a", "b"], False),
        (["--rank", "tea, coffee"], ["tea", "coffee"], False),
        (["--abstain"], None, True),
    ],
)
def test_a_vote_is_what_was_typed(
    agentorch: Callable[..., Any], desk: Any, words: list[str], vote: Any, abstain: bool
) -> None:
    desk.answers["consensus.vote"] = VoteView(decision_id="d1", agent_id="ada", status="answered")

    outcome = agentorch("consensus", "vote", "d1", "--as", "ada", *words)

    assert outcome.code == 0
    _, asked = desk.calls[0]
    assert (asked["agent_id"], asked["vote"], asked["abstain"]) == ("ada", vote, abstain)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--right"], {"right": True}),
        (["--wrong"], {"right": False}),
        (["--answer", "18"], {"answer": 18, "has_answer": True}),
        (["--answer", "Paris"], {"answer": "Paris", "has_answer": True}),
    ],
)
def test_an_outcome_is_what_was_typed(
    agentorch: Callable[..., Any], desk: Any, words: list[str], said: dict[str, Any]
) -> None:
    desk.answers["outcome.say"] = OutcomeView(
        task_id="t", capability="sum", is_right=True, credited=3, verified=1
    )

    outcome = agentorch("outcome", "t", *words)

    _, asked = desk.calls[0]
    assert {key: asked[key] for key in said} == said
    assert "3 agents were credited" in outcome.out


@pytest.mark.parametrize(
    "text",
    [
        "task,right,answer\na,true,\nb,no,\nc,,18\n",
        "\ufefftask,right,answer\r\na,true,\r\nb,no,\r\nc,,18\r\n",
        '{"task": "a", "right": true}\n{"task": "b", "right": false}\n\n{"task": "c", "answer": 18}\n',
    ],
    ids=["csv", "csv-of-a-spreadsheet", "jsonl"],
)
def test_many_outcomes_come_from_a_file(
    agentorch: Callable[..., Any], desk: Any, tmp_path: Path, text: str
) -> None:
    (tmp_path / "outcomes").write_text(text)
    desk.answers["outcome.say_many"] = ChangeReply(
        changed=["a", "b"], unchanged={"c": "there is no task 'c'"}
    )

    outcome = agentorch("outcome", "--from", "outcomes")

    assert desk.calls[0][1]["outcomes"] == [
        {"task_id": "a", "right": True},
        {"task_id": "b", "right": False},
        {"task_id": "c", "answer": 18, "has_answer": True},
    ]
    assert outcome.code == 9
    assert "1 of 3 outcomes were not taken: c: there is no task" in outcome.err


@pytest.mark.parametrize(
    "text",
    ['task,answer\na,"two\nlines\u2028"\n', '{"task": "a", "answer": "two\\nlines\u2028"}\n'],
    ids=["csv", "jsonl"],
)
def test_the_lines_of_an_answer_are_no_lines_of_the_file(
    agentorch: Callable[..., Any], desk: Any, tmp_path: Path, text: str
) -> None:
    (tmp_path / "outcomes").write_text(text, "utf-8")
    desk.answers["outcome.say_many"] = ChangeReply(changed=["a"])

    agentorch("outcome", "--from", "outcomes")

    assert desk.calls[0][1]["outcomes"] == [
        {"task_id": "a", "answer": "two\nlines\u2028", "has_answer": True}
    ]


@pytest.mark.parametrize("word", ["Paris", "nan", "[1, 2", "[" * 5_000 + "]" * 5_000])
def test_what_is_no_json_is_text(agentorch: Callable[..., Any], desk: Any, word: str) -> None:
    desk.answers["outcome.say"] = OutcomeView(task_id="t", capability="c", is_right=None)

    agentorch("outcome", "t", "--answer", word)

    assert desk.calls[0][1]["answer"] == word


def test_a_closed_vote_shows_bars_weights_dissent_and_what_was_saved(
    agentorch: Callable[..., Any], desk: Any
) -> None:
    desk.answers["consensus.get"] = decision(
        status="reached",
        consensus_reached=True,
        electorate=5,
        votes=[
            {"agent_id": "a", "status": "answered", "answer": "soup", "weight": 1.39},
            {"agent_id": "b", "status": "answered", "answer": "pizza", "weight": 1.39},
            {"agent_id": "c", "status": "lost", "answer": None},
        ],
        counts={'"soup"': 3, '"pizza"': 1},
        votes_used=4,
        votes_not_asked=1,
        confidence=0.93,
        confidence_basis="calibrated(73)",
        dissent=[{"agent_id": "b", "answer": "pizza"}],
        decided_by="threshold",
        decided_at="2026-05-04T12:00:00Z",
        escalation=[{"step": "voters", "added": ["e"]}],
        late_votes=[{"agent_id": "d", "answer": "salad"}],
        verified=True,
    )

    page = agentorch("consensus", "show", "d1").out

    for said in ("3 of 4", "1 not asked", "calibrated(73)", "dissents", "1.39", "lost", "asked e as well",
                 "salad", "known to be right"):  # fmt: skip
        assert said in page
