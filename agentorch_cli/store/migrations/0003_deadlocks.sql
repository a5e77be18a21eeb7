-- Waiting: parents that wait for their sub-tasks, dependencies on ids that do not exist yet, and
-- the deadlocks that were found.

alter table task_attempts
  -- it waits for its sub-tasks and has given its slot back
  add column is_parked boolean not null default false,
  -- its agent does one more than it has slots, so it goes on without taking one again
  add column is_lent boolean not null default false,
  -- the sub-tasks that it waits for, and since when
  add column awaits text[] not null default '{}',
  add column waits_since timestamptz,
  -- nothing is in its way any more but a slot
  add column wants_slot_since timestamptz;

drop index attempt_owns_slot;
create unique index attempt_owns_slot on task_attempts (agent_id, slot)
  where status in ('sent', 'accepted') and not is_parked;
create index attempt_waits on task_attempts (task_id)
  where waits_since is not null and status in ('sent', 'accepted');
create index attempt_continues on task_attempts (wants_slot_since)
  where wants_slot_since is not null and status in ('sent', 'accepted');

-- How often a deadlock cost the task its work.
alter table task_distributions add column restarts integer not null default 0;

-- What the node's engine takes at most; 0 = no limit.
alter table nodes add column most_running integer not null default 0;

-- Dependencies on ids that do not exist yet (`--allow-forward`). Their edges are in
-- task_dependencies too; these rows go when the task comes. Empty but for such submissions,
-- so that every submission can look here at no cost.
create table forward_references (
  depends_on text not null,
  task_id    text not null,
  noted_at   timestamptz not null default now(),
  primary key (depends_on, task_id)
);

-- One row per deadlock, for ever; it is open while resolved_at is null.
create table deadlocks (
  deadlock_id uuid primary key,
  kind        text not null check (kind in ('unsatisfiable', 'missing_dependency', 'failed_dependency',
                'circular_dependency', 'hold_and_wait', 'timeout')),
  -- what makes it the same one when it is seen again
  mark        text not null,
  -- in the order of the cycle, where there is one
  members     text[] not null,
  edges       jsonb not null default '[]',
  reason      text not null,
  waited_s    double precision not null default 0,
  victims     text[] not null default '{}',
  cost        jsonb not null default '{}',
  resolution  text,
  resolved_by text,
  node_id     text,
  detected_at timestamptz not null default now(),
  resolved_at timestamptz,
  constraint deadlock_resolved_says_how check ((resolved_at is null) or (resolution is not null))
);
create unique index deadlock_open on deadlocks (mark) where resolved_at is null;
create index deadlock_mark on deadlocks (mark, resolved_at);
create index deadlock_recent on deadlocks (detected_at);
