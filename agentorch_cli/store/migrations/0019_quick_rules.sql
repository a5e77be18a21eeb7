-- The same rules, in words that PostgreSQL reads quickly.
--
-- It reads the text of all checks of a table, and of the conditions of its triggers, anew for each statement that
-- writes a row there, and for each part of a statement that does: 22 kB for a task, also where only its status
-- changes. That was a fifth of what a statement about a single task took. A rule of a type (a domain) is read
-- once by each connection, and looked at where a value of that type is written; so rules about one column, most of
-- which never changes, are rules of types here. Those about several columns stay checks, in fewer words: a list
-- that is written as one value is half of the same list written as an expression.
--
-- The table is written anew, once.

create domain agentorch_name as text check (length(value) between 1 and 200);
create domain agentorch_priority as smallint check (value between 0 and 10);
create domain agentorch_agents as smallint check (value >= 1);
create domain agentorch_wanted as smallint check (value >= 0);
create domain agentorch_count as integer check (value >= 0);
-- what is no number counts as more than everything
create domain agentorch_seconds as double precision check (value > 0 and value < 'infinity');
create domain agentorch_coverage as text check (value in ('each', 'team'));
create domain agentorch_on_dependency_failure as text check (value in ('fail', 'run', 'skip'));

drop trigger task_indexed_status on task_distributions;
drop trigger task_one_outcome on task_distributions;

alter table task_distributions
  drop constraint task_distributions_pool_check,
  drop constraint task_distributions_idempotency_key_check,
  drop constraint task_distributions_priority_check,
  drop constraint task_distributions_min_agents_check,
  drop constraint task_distributions_first_wave_check,
  drop constraint task_distributions_wanted_check,
  drop constraint task_distributions_waiting_on_check,
  drop constraint task_distributions_retries_check,
  drop constraint task_distributions_concurrency_slot_check,
  drop constraint task_distributions_timeout_seconds_check,
  drop constraint task_distributions_coverage_check,
  drop constraint task_distributions_on_dependency_failure_check,
  alter column pool type agentorch_name,
  alter column idempotency_key type agentorch_name,
  alter column priority type agentorch_priority,
  alter column min_agents type agentorch_agents,
  alter column first_wave type agentorch_agents,
  alter column wanted type agentorch_wanted,
  alter column waiting_on type agentorch_count,
  alter column retries type agentorch_count,
  alter column concurrency_slot type agentorch_count,
  alter column timeout_seconds type agentorch_seconds
    using case when timeout_seconds < 'infinity' then timeout_seconds else 300 end,
  alter column coverage type agentorch_coverage,
  alter column on_dependency_failure type agentorch_on_dependency_failure,
  drop constraint task_distributions_status_check,
  drop constraint task_final_has_time,
  drop constraint task_wants_only_while_open,
  drop constraint task_blocked_waits,
  add constraint task_distributions_status_check
    check (status = any ('{blocked,pending,running,completed,failed,cancelled,skipped}')),
  add constraint task_final_has_time
    check ((status = any ('{completed,failed,cancelled,skipped}')) = (completed_at is not null)),
  add constraint task_wants_only_while_open check (wanted = 0 or status = any ('{pending,running}')),
  add constraint task_blocked_waits check (status <> 'blocked' or waiting_on > 0);

alter table task_attempts
  drop constraint task_attempts_status_check,
  drop constraint attempt_live_is_open,
  add constraint task_attempts_status_check
    check (status = any ('{sent,accepted,completed,failed,lost,timed_out,cancelled}')),
  add constraint attempt_live_is_open check ((status = any ('{sent,accepted}')) = (finished_at is null));

create trigger task_indexed_status
  before insert or update on task_distributions for each row
  when (new.indexed_status is distinct from case
    when new.status <> 'completed' and (
      new.completed_at is not null or new.deadline is not null or new.concurrency_slot is not null
      or new.depends_on <> '{}')
    then new.status end)
  execute function agentorch_set_indexed_status();

-- `task_final_has_time` says which tasks have their outcome, and `attempt_live_is_open` which attempts have ended.
create trigger task_one_outcome
  before update on task_distributions for each row
  when (old.completed_at is not null and new.generation = old.generation
        and (new.status <> old.status or new.completed_at is distinct from old.completed_at))
  execute function agentorch_refuse_second_outcome();

drop trigger attempt_funding_settled on task_attempts;
create trigger attempt_funding_settled
  after update of status, usage on task_attempts for each row
  when (new.is_funded and new.finished_at is not null
        and (new.status <> old.status or new.usage is distinct from old.usage))
  execute function agentorch_settle_funding();
