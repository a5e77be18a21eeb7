"""People in real terminals, at a real `serve`: what they see, type and send."""

from __future__ import annotations

import json
import os
import signal
import termios
from typing import Any

import pexpect
import pytest
from townspeople import Town, plain

VERDICT = {
    "type": "object",
    "required": ["verdict", "pages"],
    "properties": {
        "verdict": {"enum": ["approve", "reject"]},
        "pages": {"type": "array", "items": {"type": "integer"}},
    },
}


def seen(child: Any, until: str) -> str:
    """What was shown until this."""
    child.expect_exact(until)
    return plain(child.before)


def told(child: Any, news: str, prompt: str) -> None:
    """This is said, and then it is asked again. (The prompt alone is drawn with every key.)"""
    child.expect_exact(news)
    child.expect_exact(prompt)


def test_work_is_shown_and_an_answer_has_to_fit(town: Town) -> None:
    pat = town.attach("pat", "-c", "approve")
    task = town.submit(
        name="Release 2.0",
        type="approve",
        priority=7,
        required_capabilities=["approve"],
        data={"version": "2.0", "checks": {"passed": 12}},
        result_schema=VERDICT,
    )
    page = seen(pat, "answer> ")
    assert "── Release 2.0 ──" in page
    assert "59m 59s left ──" in page or "1h 0m left" in page
    assert "approve, priority 7" in page
    assert "version: 2.0" in page
    assert "passed: 12" in page
    assert max(map(len, page.splitlines())) <= 80

    pat.sendline('{"verdict": "approve", "pages": [1, "two"]}')
    told(pat, '/pages/1: must be a whole number, not "two"', "answer> ")
    assert town.ask("task.get", task_id=task).failures == 0, "it was checked before it was sent"
    pat.sendline('{"verdict": "approve", "pages": [1, 2]}')
    pat.expect("answered")

    found = town.outcome(task)
    assert (found.result, found.failures) == ({"verdict": "approve", "pages": [1, 2]}, 0)
    [agent] = [one for one in town.ask("agent.list") if one.agent_id == "pat"]
    assert (agent.type, agent.capabilities) == ("person", ["approve"])


def test_the_fields_of_an_answer_are_asked_for_one_by_one(town: Town) -> None:
    pat = town.attach("pat", "-c", "approve")
    schema = {
        "type": "object",
        "required": ["verdict", "sure"],
        "properties": {
            "verdict": {"enum": ["approve", "reject"]},
            "sure": {"type": "boolean"},
            "score": {"type": "integer", "minimum": 1, "maximum": 5},
            "note": {"type": "string"},
        },
    }
    task = town.submit(required_capabilities=["approve"], result_schema=schema)

    pat.expect_exact("verdict> ")
    pat.sendline("perhaps")
    told(pat, "choose one of approve, reject", "verdict> ")
    pat.sendline("2")
    pat.expect_exact("sure> ")
    pat.sendline("y")
    pat.expect_exact("score> ")
    pat.sendline("6")
    pat.expect("greater than the maximum of 5")
    pat.expect_exact("score> ")
    pat.sendline("")
    pat.expect_exact("note> ")
    pat.sendline("42")
    pat.expect("answered")

    assert town.outcome(task).result == {"verdict": "reject", "sure": True, "note": "42"}


def test_questions_and_votes_are_answered_there(town: Town) -> None:
    pat = town.attach("pat", "-c", "approve")
    decision = town.ask(
        "consensus.open",
        topic="deploy",
        question="Today?",
        options={"options": ["yes", "no"], "rule": "unanimous", "min_votes": 1},
        voters=["pat"],
        deadline_seconds=600.0,
    )
    page = seen(pat, "vote> ")
    assert "── deploy ──" in page
    assert "question  Today?" in page
    assert "1  yes" in page
    pat.sendline("/decline")
    told(pat, "/abstain", "vote> ")
    pat.sendline("1")
    pat.expect("your vote is cast")
    found = town.until(
        "the question is closed",
        lambda: next(
            (
                one
                for one in town.ask("consensus.list")
                if one.decision_id == decision.decision_id and one.decided_at
            ),
            None,
        ),
    )
    assert found.final_decision == "yes"

    linus = town.attach("linus", "-c", "approve")
    vote = {"panel": 2, "options": ["good", "bad"], "vote_on": "/verdict", "min_votes": 1}
    task = town.submit(required_capabilities=["approve"], consensus=vote)
    pat.expect_exact("vote> ")
    pat.sendline("good")
    pat.expect("your vote is cast")
    linus.expect_exact("vote> ")
    linus.sendline("/abstain")
    linus.expect("abstained")

    found = town.outcome(task)
    assert found.result == {"verdict": "good"}
    assert {one["agent_id"]: one["status"] for one in found.decision.votes} == {
        "pat": "answered",
        "linus": "abstained",
    }


def test_a_vote_without_agreement_comes_to_a_human(town: Town) -> None:
    voters = [town.attach(name, "-c", "check") for name in ("ada", "bea")]
    judge = town.attach("jo")
    task = town.submit(
        name="is it deep",
        required_capabilities=["check"],
        consensus={"panel": 2, "on_no_consensus": "escalate", "cap": 2},
    )
    for voter, answer in zip(voters, ("deep", "shallow"), strict=True):
        voter.expect_exact("vote> ")
        voter.sendline(answer)

    page = seen(judge, "answer> ")
    assert "the voters did not agree, and you decide" in page
    assert "deep  1 vote" in page
    judge.sendline("/abstain")
    told(judge, "this is no vote", "answer> ")
    judge.sendline("shallow")

    found = town.outcome(task)
    assert (found.result, found.decision.decided_by) == ("shallow", "judge")


def test_declined_work_goes_to_somebody_else(town: Town) -> None:
    pat = town.attach("pat", "-c", "approve")
    task = town.submit(required_capabilities=["approve"], retries=0)
    pat.expect_exact("answer> ")

    pat.sendline("/decline on holiday from tomorrow")

    pat.expect("declined; it goes to somebody else")
    pat.expect_exact("(waiting) ")
    linus = town.attach("linus", "-c", "approve")
    linus.expect_exact("answer> ")
    linus.sendline("fine")
    found = town.outcome(task)
    assert (found.result, found.failures) == ("fine", 0)
    assert [(one.agent_id, one.status) for one in found.attempts] == [
        ("pat", "cancelled"),
        ("linus", "completed"),
    ]
    assert found.attempts[0].error["code"] == "declined"
    assert found.attempts[0].error["message"] == "agent pat declined it: on holiday from tomorrow"


@pytest.mark.parametrize(
    ("keys", "code"), [("/quit\r", 0), ("\x04", 0), ("\x03\x03", 130)], ids=["quit", "ctrl-d", "ctrl-c"]
)
def test_leaving_gives_the_work_back_and_the_terminal_as_it_was(town: Town, keys: str, code: int) -> None:
    command = town.command("pat", "-c", "approve")
    pat = pexpect.spawn(
        "/bin/sh",
        ["-c", 'stty -g; "$@"; echo "code $?"; stty -g', "sh", *command],
        env=town.environment,
        encoding="utf-8",
        timeout=10,
        dimensions=(30, 80),
    )
    mode = pat.readline().strip()
    pat.expect("connected to")
    pat.expect_exact("(waiting) ")
    assert termios.tcgetattr(pat.child_fd)[3] & termios.ICANON == 0
    task = town.submit(required_capabilities=["approve"])
    pat.expect_exact("answer> ")

    pat.send(keys)

    pat.expect("1 task goes back to the fleet")
    pat.expect(f"code {code}\r\n")
    assert pat.readline().strip() == mode
    pat.close()
    again = town.attach("pat", "-c", "approve")
    again.expect_exact("answer> ")
    again.sendline("back")
    found = town.outcome(task)
    assert (found.result, found.failures) == ("back", 0)
    assert found.attempts[0].error["code"] == "returned"


def test_one_ctrl_c_throws_the_line_away_and_asks_again(town: Town) -> None:
    pat = town.attach("pat", "-c", "approve")
    task = town.submit(required_capabilities=["approve"])
    pat.expect_exact("answer> ")

    pat.send("not this\x03")
    pat.expect("Ctrl-C again leaves")
    pat.expect_exact("answer> ")
    pat.send("nor this\x03")
    pat.expect("Ctrl-C again leaves")
    pat.expect_exact("answer> ")
    pat.sendline("but this")

    assert town.outcome(task).result == "but this"


def test_work_that_is_taken_back_while_one_types_is_told(town: Town) -> None:
    pat = town.attach("pat", "-c", "approve")
    task = town.submit(name="report", required_capabilities=["approve"])
    pat.expect_exact("answer> ")
    pat.send("half an ans")
    pat.expect_exact("half an ans")

    town.ask("task.cancel", task_ids=[task], reason="not needed")

    pat.expect("report is not asked any more: the task was cancelled")
    pat.expect_exact("(waiting) ")
    again = town.submit(required_capabilities=["approve"])
    pat.expect_exact("answer> ")
    pat.sendline("whole")
    assert town.outcome(again).result == "whole"


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u200b\x1b]52;c;ZWNobw==\x07[/bold][red]"


def test_what_others_wrote_cannot_reach_the_terminal(town: Town) -> None:
    pat = town.attach("pat", "-c", "approve")
    task = town.submit(
        required_capabilities=["approve"],
        data={HOSTILE: HOSTILE, "list": [HOSTILE]},
        result_schema={
            "type": "object",
            "required": ["\x1b[2Jname"],
            "properties": {
                "\x1b[2Jname": {"enum": [HOSTILE, "fine"]},
            },
            "description": HOSTILE,
        },
    )

    pat.expect("name> ")
    shown = pat.before
    for forbidden in ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "\u200b", "\x07"):
        assert forbidden not in shown
    assert r"\x1b]0;owned\x07\x1b[2J\x9b31m\u{202e}gnp\u{200b}" in plain(shown)
    assert "[/bold][red]" in plain(shown)
    pat.sendline("2")
    assert town.outcome(task).result == {"\x1b[2Jname": "fine"}


def test_an_answer_can_be_written_in_an_editor(town: Town, editor: str) -> None:
    pat = town.attach("pat", "-c", "approve", EDITOR=editor)
    task = town.submit(required_capabilities=["approve"], result_schema={"type": "integer"})
    pat.expect_exact("answer> ")

    pat.sendline("/edit")
    pat.expect("the editor has the terminal; it was given ''")
    pat.expect_exact("write> ")
    assert termios.tcgetattr(pat.child_fd)[3] & termios.ICANON, "the terminal is an ordinary one meanwhile"
    pat.sendline("many")
    pat.expect("must be a whole number")
    pat.expect_exact("answer> ")
    pat.sendline("/edit")
    pat.expect("it was given 'many'")
    pat.expect_exact("write> ")
    pat.sendline("42")

    assert town.outcome(task).result == 42


def test_several_asks_wait_and_can_be_skipped(town: Town) -> None:
    pat = town.attach("pat", "-c", "approve", "--slots", "2")
    first = town.submit(name="first", required_capabilities=["approve"])
    pat.expect_exact("answer> ")
    second = town.submit(name="second", required_capabilities=["approve"])
    pat.expect("1 more waits for you")

    pat.sendline("/skip")
    pat.expect("second")
    pat.expect_exact("answer> ")
    pat.sendline("/fail cannot be read")
    pat.expect("first")
    pat.expect_exact("answer> ")
    pat.sendline("//slash")

    assert town.outcome(first).result == "/slash"
    town.until("second has failed once", lambda: town.ask("task.get", task_id=second).failures)
    assert town.ask("task.get", task_id=second).attempts[0].error["message"] == "cannot be read"
    town.ask("task.cancel", task_ids=[second])


def test_a_program_answers_line_by_line(town: Town) -> None:
    task = town.submit(required_capabilities=["approve"], data="q", result_schema={"type": "integer"})

    process = town.pipe("pat", "-c", "approve", "-o", "jsonl")
    out, err = process.communicate("many\n/edit\n7\n", timeout=15)

    assert process.returncode == 0, err
    [shown] = [json.loads(line) for line in out.splitlines()]
    assert (shown["kind"], shown["taskId"], shown["data"]) == ("task", task, "q")
    assert 'it must be a whole number, not "many"' in err
    assert "/edit needs a terminal" in err
    assert town.outcome(task).result == 7


def test_no_input_at_all_leaves_at_once(town: Town) -> None:
    process = town.pipe("pat", "-c", "approve")

    out, err = process.communicate("", timeout=15)

    assert (process.returncode, out) == (0, "")
    assert err.endswith("left\n")


def test_a_lost_connection_keeps_what_is_typed(town: Town) -> None:
    pat = town.attach("pat", "-c", "approve")
    task = town.submit(required_capabilities=["approve"], timeout="1h")
    pat.expect_exact("answer> ")
    pat.send("still ")
    pat.expect_exact("still ")

    os.kill(town.serve.pid, signal.SIGKILL)
    town.serve.kill()
    pat.expect("the connection is lost")
    pat.expect_exact("still ")
    town.serve.start()
    pat.expect("connected again")
    pat.expect_exact("still ")
    pat.sendline("here")

    found = town.outcome(task)
    assert (found.result, len(found.attempts)) == ("still here", 1)
