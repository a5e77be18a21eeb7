-- Time: schedules, and how long a task may be ready before somebody starts it.

-- Lock order: a schedule's row before any task.
create table schedules (
  -- part of the idempotency keys of what it submits, which have 200 characters
  name               text primary key check (length(name) between 1 and 160),
  cron               text not null check (length(cron) between 1 and 200),
  time_zone          text not null default 'UTC' check (length(time_zone) between 1 and 200),
  -- what each run submits, as the task file said it: a list of tables
  tasks              json not null check (json_typeof(tasks) = 'array'),
  missed             text not null default 'once' check (missed in ('skip', 'once', 'all')),
  overlap            text not null default 'allow' check (overlap in ('allow', 'skip')),
  is_paused          boolean not null default false,
  -- the time of the next run; null: there is none any more
  next_at            timestamptz,
  -- it cannot run, for the reason in `error`: not looked at again before
  retry_at           timestamptz,
  error              text,
  -- the time that the last run was for, and what it submitted
  last_at            timestamptz,
  last_submission_id uuid,
  last_tasks         text[] not null default '{}',
  runs               bigint not null default 0 check (runs >= 0),
  skipped            bigint not null default 0 check (skipped >= 0),
  created_at         timestamptz not null default now(),
  updated_at         timestamptz not null default now(),
  constraint schedule_error_is_tried_again check ((error is null) = (retry_at is null))
);
create index schedule_due on schedules (greatest(next_at, retry_at)) where not is_paused;

-- Until when a ready task may wait for somebody to start it. Adding seconds does not depend on the
-- session's time zone, as days would: so it may be indexed.
create function agentorch_queue_until(run_at timestamptz, created_at timestamptz, options jsonb)
returns timestamptz language sql immutable as $$
  select greatest(run_at, created_at)
    + make_interval(secs => (options ->> 'queue_timeout_seconds')::double precision)
$$;
create index task_queue_until on task_distributions (agentorch_queue_until(run_at, created_at, options))
  where status = 'pending' and wanted > 0 and options ? 'queue_timeout_seconds';
