"""The checker finds what it is there for: each rule notices corrupted tables and journals."""

from __future__ import annotations

import ast
import asyncio
import copy
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from inside import inside, some_of_each

from agentorch_cli import Orchestrator
from agentorch_cli.chaos import checker, evidence, journal, moves, recount
from agentorch_cli.chaos.checker import RULES, check
from agentorch_cli.chaos.evidence import gather
from agentorch_cli.chaos.journal import Entry
from agentorch_cli.chaos.recount import verdict
from tests.conftest import quick_settings
from tests.databases import execute, new_database

ROOT = Path(__file__).parents[2]
Journals = dict[str, list[Entry]]


class Finished(NamedTuple):
    """A run that is over: its database, and the journals of those who took part."""

    url: str
    journals: Journals


@pytest.fixture(scope="module")
def finished(postgres: str) -> Iterator[Finished]:
    """Every kind of task, done by five agents; nothing was broken."""
    url = asyncio.run(new_database(postgres, "finished"))
    yield Finished(url, asyncio.run(work(url)))
    asyncio.run(execute(postgres, "drop database finished with (force)"))


async def work(url: str) -> Journals:
    async with Orchestrator(quick_settings(url)) as orchestrator, inside(url, orchestrator.url) as crew:
        batch = some_of_each(3)
        ids = await crew.submit(orchestrator, batch)
        called_off = next(i for i, task in zip(ids, batch, strict=True) if task.get("labels"))
        await orchestrator.call("task.cancel", task_ids=[called_off])
        crew.notes["client"].write({"what": "cancelled", "task": called_off})
        await crew.until_over()
        await asyncio.sleep(0.1)  # the last acks
        return crew.journals


@pytest.fixture
async def loose(finished: Finished) -> AsyncIterator[asyncpg.Connection]:
    """A connection in a transaction in which nothing is forbidden, and of which nothing stays."""
    connection = await asyncpg.connect(finished.url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("set local session_replication_role = replica")
    await connection.execute(
        """do $$ declare one record; begin
          for one in select conrelid::regclass as t, conname from pg_constraint
            where connamespace = 'public'::regnamespace and conrelid <> 0 and contype in ('c', 'u', 'p', 'f')
            order by contype = 'p' loop
            execute format('alter table %s drop constraint if exists %I cascade', one.t, one.conname);
          end loop;
          for one in select indexrelid::regclass as i from pg_index join pg_class c on c.oid = indrelid
            where indisunique and c.relnamespace = 'public'::regnamespace loop
            execute format('drop index %s', one.i);
          end loop;
        end $$"""
    )
    yield connection
    await transaction.rollback()
    await connection.close()


async def test_nothing_is_wrong_with_a_run_that_went_well(finished: Finished) -> None:
    connection = await asyncpg.connect(finished.url)
    found = await gather(connection, finished.journals)
    await connection.close()

    assert {name: faults for name, faults in check(found).items() if faults} == {}
    assert {task["status"] for task in found.tasks.values()} == {
        "completed",
        "failed",
        "cancelled",
        "skipped",
    }
    assert any(one["rule"] for one in found.decisions)
    assert any(task["parent_id"] for task in found.tasks.values())


# What is done to the tables, by the rule that must notice and what it is.
ALONE = """(select task_id from task_distributions where status = 'completed' and max_agents = 1
  and depends_on = '{}' and parent_id is null and name like 'inside-%' and attempts_made = 1
  order by task_id limit 1)"""
LATER = """(select task_id from task_distributions where status = 'completed' and depends_on <> '{}'
  and on_dependency_failure = 'fail' order by task_id limit 1)"""
VOTE = "(select decision_id from consensus_decisions order by status desc, created_at limit 1)"

CORRUPTIONS: dict[tuple[str, str], str] = {
    ("submissions", "a task is gone"): f"delete from task_distributions where task_id = {ALONE}",
    ("submissions", "a task is there twice"): f"""
        insert into task_distributions
          (task_id, task_type, status, submission_id, idempotency_key, completed_at)
        select 'twin', task_type, status, submission_id, idempotency_key, completed_at
        from task_distributions where task_id = {ALONE}""",
    ("submissions", "a task that nobody submitted"): """
        insert into task_distributions (task_id, task_type, status, submission_id, completed_at)
        values ('stranger', 'chaos', 'completed', gen_random_uuid(), now())""",
    ("ends", "a task is open"): f"update task_distributions set status = 'running' where task_id = {ALONE}",
    ("ends", "a task wants agents"): f"update task_distributions set wanted = 1 where task_id = {ALONE}",
    ("ends", "an attempt is live"): f"update task_attempts set status = 'accepted' where task_id = {ALONE}",
    ("ends", "an edge was left"): f"insert into task_dependencies values ('x', {ALONE})",
    ("ends", "a vote is open"): f"""
        update consensus_decisions set status = 'pending' where decision_id = {VOTE}""",
    ("outcomes", "it ended twice"): f"""
        insert into events (kind, task_id) select 'task_completed', {ALONE}""",
    ("outcomes", "its end is not in the log"): f"""
        delete from events where kind = 'task_completed' and task_id = {ALONE}""",
    ("outcomes", "a result that nobody brought"): f"""
        update task_distributions set result = '{{"by": "nobody"}}' where task_id = {ALONE}""",
    ("outcomes", "a result that no journal knows"): f"""
        update task_attempts set result = '"x"' where task_id = {ALONE}""",
    ("outcomes", "a failure with a result"): """
        update task_distributions set result = '1' where status = 'failed'""",
    ("outcomes", "two results for one task"): f"""
        insert into task_attempts
          (message_id, task_id, agent_id, attempt, status, slot, node_id, result, finished_at)
        select gen_random_uuid(), task_id, agent_id, attempt + 1, status, slot, node_id, result, finished_at
        from task_attempts where task_id = {ALONE}""",
    ("outcomes", "too few results of a team"): """
        update task_attempts set status = 'lost' where task_id in (
          select task_id from task_distributions
          where min_agents > 1 and options::text not like '%consensus%')""",
    ("reasons", "a reason that nobody gave"): """
        update task_distributions set error = '{"code": "bug"}' where status = 'failed'""",
    ("transitions", "out of a final state"): f"""
        insert into events (kind, task_id) select 'task_requeued', {ALONE}""",
    ("transitions", "an end before its beginning"): f"""
        delete from events where kind = 'task_assigned' and task_id = {LATER};
        insert into events (kind, task_id) select 'task_assigned', {LATER}""",
    ("transitions", "the log ends elsewhere"): f"""
        update task_distributions set status = 'skipped' where task_id = {ALONE}""",
    ("transitions", "no submission"): f"""
        delete from events where kind = 'task_submitted' and task_id = {ALONE}""",
    ("attempts", "a gap"): f"update task_attempts set attempt = 7 where task_id = {ALONE}",
    ("attempts", "assigned twice"): f"""
        insert into events (kind, task_id, agent_id, message_id)
        select kind, task_id, agent_id, message_id from events
        where kind = 'task_assigned' and task_id = {ALONE}""",
    ("attempts", "accepted after its end"): f"""
        insert into events (kind, task_id, agent_id, message_id)
        select 'attempt_accepted', task_id, agent_id, message_id
        from task_attempts where task_id = {ALONE}""",
    ("attempts", "never assigned"): f"""
        delete from events where kind = 'task_assigned' and task_id = {ALONE}""",
    ("order", "before its dependency, by the log"): f"""
        alter table events alter event_id drop identity;
        update events set event_id = -event_id
        where kind = 'task_assigned' and task_id = {LATER}""",
    ("order", "before its dependency, by the clock"): f"""
        update task_attempts set sent_at = sent_at - interval '1 hour' where task_id = {LATER}""",
    ("order", "after a dependency that failed"): f"""
        update task_distributions set status = 'failed'
        where task_id = any((select depends_on from task_distributions where task_id = {LATER})::text[])""",
    ("slots", "more than it has"): "update agent_registry set slots = 1",
    ("slots", "two in one slot"): """
        update task_attempts set slot = 0, sent_at = sent_at - interval '1 hour'""",
    ("slots", "a slot that is none"): f"update task_attempts set slot = 99 where task_id = {ALONE}",
    ("budgets", "more is promised than there is"): """
        update events set data = jsonb_set(data::jsonb, '{limit_usd}', '0.001')
        where kind = 'budget_reserved'""",
    ("budgets", "something stays reserved"): "update budgets set reserved_usd = 0.5",
    ("budgets", "more is spent than was charged"): "update budgets set spent_usd = spent_usd + 0.01",
    ("leases", "with two agents at once"): """
        update task_attempts set finished_at = finished_at + interval '1 hour'
        where attempt = 1 and task_id in (select task_id from task_attempts where attempt = 2)""",
    ("leases", "ended before it began"): f"""
        update task_attempts set finished_at = sent_at - interval '1 second' where task_id = {ALONE}""",
    ("leases", "with more than it asked for"): """
        update task_distributions set max_agents = 1, options = '{"consensus": {}}' where min_agents > 1;
        update consensus_decisions set participating_agents = '{}'""",
    ("votes", "a second ballot"): f"""
        insert into consensus_ballots select * from consensus_ballots where decision_id = {VOTE} limit 1""",
    ("votes", "a stranger's ballot"): f"""
        update consensus_ballots set agent_id = 'stranger' where decision_id = {VOTE}""",
    ("votes", "a ballot that nobody cast"): f"""
        update consensus_ballots set vote = '"forged"' where decision_id = {VOTE}""",
    ("votes", "counted wrongly"): f"""
        update consensus_decisions set votes_used = votes_used + 1 where decision_id = {VOTE}""",
    ("votes", "the other outcome"): f"""
        update consensus_decisions set status = case status when 'reached' then 'failed' else 'reached' end
        where decision_id = {VOTE}""",
    ("votes", "an answer that is on no ballot"): """
        update consensus_decisions set final_decision = '"forged"' where status = 'reached'""",
    ("votes", "another electorate"): f"""
        update consensus_decisions set electorate = electorate + 3 where decision_id = {VOTE}""",
    ("told", "an attempt that was sent is gone"): f"delete from task_attempts where task_id = {ALONE}",
    ("told", "an acknowledged result is not there"): f"""
        update task_attempts set status = 'sent' where task_id = {ALONE}""",
    ("told", "a cancelled task goes on"): """
        update task_distributions set status = 'completed' where status = 'cancelled'""",
}  # fmt: skip


@pytest.mark.parametrize(("rule", "what"), CORRUPTIONS, ids=lambda text: text.replace(" ", "-"))
async def test_a_corrupted_table_is_noticed(
    rule: str, what: str, loose: asyncpg.Connection, finished: Finished
) -> None:
    await loose.execute(CORRUPTIONS[rule, what])

    assert check(await gather(loose, finished.journals), only=(rule,))[rule]


def forget_results(journals: Journals) -> None:
    for entries in journals.values():
        entries[:] = [entry for entry in entries if entry["what"] != "result"]


def forget_submitting(journals: Journals) -> None:
    journals["client"][0]["names"].pop()


def be_told_of(what: str, **fields: Any) -> Callable[[Journals], None]:
    def change(journals: Journals) -> None:
        journals["agent-0"].append({"what": what, **fields})

    return change


NOWHERE = "01a2054b-21d6-79fb-a217-9b6419d37952"

LIES: dict[tuple[str, str], Callable[[Journals], None]] = {
    ("submissions", "an answer about a task that is not there"): be_told_of(
        "submitted", tasks=[["inside-9999", NOWHERE, True]]
    ),
    ("submissions", "a sub-task that is not there"): be_told_of("submitted", task=NOWHERE),
    ("submissions", "another id"): be_told_of("submitted", tasks=[["inside-1", "inside-2", True]]),
    ("submissions", "a task that was not asked for"): forget_submitting,
    ("outcomes", "nobody wrote the results down"): forget_results,
    ("told", "work that is nobody's"): be_told_of(
        "received", message=NOWHERE, task=NOWHERE, attempt=1, inputs=[]
    ),
    ("told", "an ack for nothing"): be_told_of("acked", message=NOWHERE),
    ("told", "a command with a traceback"): be_told_of("failed", code=1, said="Traceback"),
    ("told", "a command that hung"): be_told_of("hung", command=["task", "submit"]),
}


@pytest.mark.parametrize(("rule", "what"), LIES, ids=lambda text: text.replace(" ", "-"))
async def test_a_corrupted_journal_is_noticed(rule: str, what: str, finished: Finished) -> None:
    journals = copy.deepcopy(finished.journals)
    LIES[rule, what](journals)
    connection = await asyncpg.connect(finished.url)
    found = await gather(connection, journals)
    await connection.close()

    assert check(found, only=(rule,))[rule]


def test_every_rule_has_a_corruption() -> None:
    assert {rule for rule, _ in (*CORRUPTIONS, *LIES)} == set(RULES)


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "agent.jsonl"
    first = journal.Journal(path)
    first.write({"what": "received", "message": "a"})
    first.close()
    with path.open("a") as file:
        file.write('{"what": "resu')

    again = journal.Journal(path)
    again.write({"what": "acked", "message": "a"})
    again.close()

    assert [entry["what"] for entry in journal.read(path)] == ["received", "acked"]


def test_the_moves_are_those_of_the_page() -> None:
    tasks, attempts = moves.tables_of((ROOT / "docs" / "lifecycle.md").read_text())

    assert tasks == moves.TASKS
    assert attempts == moves.ATTEMPTS


@pytest.mark.parametrize("module", [checker, evidence, journal, moves, recount])
def test_the_checker_uses_no_code_of_the_engine(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    imported = {
        name.partition(".")[0] if not name.startswith("agentorch_cli.chaos.") else "itself"
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert imported <= {"itself", "asyncpg", *sys.stdlib_module_names}


# --- the recount against every way in which a vote can go on -------------------------------------


@pytest.mark.parametrize("rule", recount.COMMON)
@pytest.mark.parametrize("voters", [2, 3, 4, 5])
def test_a_recount_stands_only_if_no_ballot_that_is_out_can_change_it(rule: str, voters: int) -> None:
    """Against counting all ways in which the rest may vote, over three answers."""
    goal = recount.needed(rule, None, voters)

    for heard in range(voters + 1):
        for cast in itertools.product("abc", repeat=heard):
            if list(cast) != sorted(cast):
                continue
            counts = sorted((cast.count(answer) for answer in "abc"), reverse=True)
            stands = verdict(counts[0], counts[1], voters - heard, goal, is_enough=heard >= 2)
            ends = {
                winner("".join(cast + rest), goal) for rest in itertools.product("abc", repeat=voters - heard)
            }
            if ends == {None}:
                assert stands == {"failed"}, cast
            elif heard < 2:
                assert stands == {"pending"}, cast
            elif len(ends) > 1 or (goal is not None and counts[0] < goal):
                assert "pending" in stands, (cast, ends)
            else:
                assert "reached" in stands, (cast, ends)


def winner(ballots: str, goal: int | None) -> str | None:
    """The answer with the most votes, the first of several; None where it has too few."""
    best = max("abc", key=lambda answer: (ballots.count(answer), -ord(answer)))
    return best if ballots.count(best) >= (goal or 1) else None
