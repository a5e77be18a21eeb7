-- A task that ends well is written in place: on the page where it lies, without an entry in any index.
--
-- PostgreSQL does so where nothing changes that an index knows, not even in its condition, and where the page
-- has room. Conditions on `status` change with every task, so the few tasks that an index wants to know by
-- their status say it once more in a column that stays null for all others.

alter table task_distributions
  -- the status of a task that did not end well, or that is open and has a deadline, a concurrency slot or
  -- dependencies; else null. Statements of the hot path write it themselves; for all others the trigger does.
  add column indexed_status text;

drop index task_deadline;
drop index task_owns_key_slot;
drop index task_needs_inputs;
drop index task_ended_badly;
drop index task_queue_until;

update task_distributions
set indexed_status = status
where status <> 'completed' and (
  completed_at is not null or deadline is not null or concurrency_slot is not null or cardinality(depends_on) > 0);

create function agentorch_set_indexed_status() returns trigger language plpgsql as $$
begin
  new.indexed_status := case
    when new.status <> 'completed' and (
      new.completed_at is not null or new.deadline is not null or new.concurrency_slot is not null
      or cardinality(new.depends_on) > 0)
    then new.status end;
  return new;
end $$;

create trigger task_indexed_status
  before insert or update on task_distributions for each row
  when (new.indexed_status is distinct from case
    when new.status <> 'completed' and (
      new.completed_at is not null or new.deadline is not null or new.concurrency_slot is not null
      or cardinality(new.depends_on) > 0)
    then new.status end)
  execute function agentorch_set_indexed_status();

create index task_deadline on task_distributions (deadline)
  where deadline is not null and indexed_status in ('blocked', 'pending', 'running');
-- A running task owns a numbered slot of its concurrency key.
create unique index task_owns_key_slot on task_distributions (concurrency_key, concurrency_slot)
  where concurrency_slot is not null and indexed_status = 'running';
create index task_needs_inputs on task_distributions (seq)
  where depends_on <> '{}' and indexed_status is not null;
create index task_ended_badly on task_distributions (seq)
  where indexed_status in ('failed', 'cancelled', 'skipped');
create index task_queue_until on task_distributions (agentorch_queue_until(run_at, created_at, options))
  where wanted > 0 and options ? 'queue_timeout_seconds';

-- Room for the two later versions of a row: they take the place of the earlier ones on the same page.
alter table task_distributions set (fillfactor = 60);
-- And room in the indexes for the entry that comes with the second version, beside that of the first: without it
-- every page of them was split soon after it had been filled.
alter index task_distributions_pkey set (fillfactor = 60);
alter index task_recent set (fillfactor = 60);
alter index task_attempts_pkey set (fillfactor = 60);
alter index attempt_is_made_once set (fillfactor = 60);
