-- The same rules again, in fewer words that are read for each statement.
--
-- What 0019 left of the texts were mostly the rules about several columns. A type may have several columns
-- too: the rule of a row of them is read once by each connection, as any rule of a type is, and what a
-- statement reads is that the row is of that type.
--
-- A program of an earlier version needs nothing of this, and goes on beside it: columns keep their types.

create type agentorch_task_state as (
  task_id text, status text, wanted agentorch_wanted, waiting_on agentorch_count, min_agents agentorch_agents,
  max_agents smallint, completed_at timestamptz);
create domain agentorch_task_rules as agentorch_task_state
  constraint task_distributions_task_id_check check (length((value).task_id) between 1 and 200)
  constraint task_distributions_status_check
    check ((value).status = any ('{blocked,pending,running,completed,failed,cancelled,skipped}'))
  constraint task_final_has_time
    check (
      ((value).status = any ('{completed,failed,cancelled,skipped}')) = ((value).completed_at is not null))
  constraint task_wants_only_while_open
    check ((value).wanted = 0 or (value).status = any ('{pending,running}'))
  constraint task_blocked_waits check ((value).status <> 'blocked' or (value).waiting_on > 0)
  constraint task_agents_in_order check ((value).min_agents <= (value).max_agents);

create type agentorch_attempt_state as (attempt integer, status text, slot integer, finished_at timestamptz);
create domain agentorch_attempt_rules as agentorch_attempt_state
  constraint task_attempts_attempt_check check ((value).attempt >= 1)
  constraint task_attempts_slot_check check ((value).slot >= 0)
  constraint task_attempts_status_check
    check ((value).status = any ('{sent,accepted,completed,failed,lost,timed_out,cancelled}'))
  constraint attempt_live_is_open
    check (((value).status = any ('{sent,accepted}')) = ((value).finished_at is null));

-- It is the cast that refuses. `is not null` would ask that none of the columns is.
alter table task_distributions
  drop constraint task_distributions_task_id_check,
  drop constraint task_distributions_status_check,
  drop constraint task_final_has_time,
  drop constraint task_wants_only_while_open,
  drop constraint task_blocked_waits,
  drop constraint task_agents_in_order,
  add constraint task_rules check (
    row(task_id, status, wanted, waiting_on, min_agents, max_agents, completed_at)::agentorch_task_rules
      is distinct from null);

alter table task_attempts
  drop constraint task_attempts_attempt_check,
  drop constraint task_attempts_slot_check,
  drop constraint task_attempts_status_check,
  drop constraint attempt_live_is_open,
  add constraint attempt_rules check (
    row(attempt, status, slot, finished_at)::agentorch_attempt_rules is distinct from null);

drop trigger task_one_outcome on task_distributions;
drop trigger task_indexed_status on task_distributions;

-- What has its outcome is seldom written. So each statement reads no more than the question whether there is
-- one, and the function looks at the rest.
create or replace function agentorch_refuse_second_outcome() returns trigger language plpgsql as $$
begin
  if new.generation = old.generation
    and (new.status <> old.status or new.completed_at is distinct from old.completed_at) then
    raise exception 'task % already has its outcome (%)', old.task_id, old.status using errcode = 'AO001';
  end if;
  return new;
end $$;

create trigger task_one_outcome
  before update on task_distributions for each row
  when (old.completed_at is not null)
  execute function agentorch_refuse_second_outcome();

-- Whether the indexes know an open task is said here ...
create trigger task_is_indexed
  before insert or update of deadline, concurrency_slot, depends_on on task_distributions for each row
  when (new.indexed_status is distinct from case
    when new.completed_at is not null or new.deadline is not null or new.concurrency_slot is not null
      or new.depends_on <> '{}'
    then nullif(new.status, 'completed') end)
  execute function agentorch_set_indexed_status();

-- ... is said anew where a task is opened again ...
create trigger task_is_indexed_anew
  before update on task_distributions for each row
  when (old.completed_at is not null)
  execute function agentorch_set_indexed_status();

-- ... and stays so while it is open: then it is enough to ask whether they knew it before. This one goes first, for
-- triggers go in the order of their names.
create trigger task_indexed_status
  before update of status, indexed_status on task_distributions for each row
  when (new.indexed_status is distinct from case
    when old.indexed_status is not null or new.completed_at is not null
    then nullif(new.status, 'completed') end)
  execute function agentorch_set_indexed_status();
