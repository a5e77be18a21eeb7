-- Agents that get nothing new for a while: by a person (paused, draining), or because they kept
-- failing (excluded). Both stay as they are through reconnects and restarts.

alter table agent_registry
  -- who is paused or draining: since when, why, and until when (null = until somebody resumes it)
  add column status_since  timestamptz,
  add column status_reason text check (length(status_reason) <= 1000),
  add column status_until  timestamptz,
  -- failures since the last success, and some of the tasks that they happened with
  add column consecutive_failures integer not null default 0 check (consecutive_failures >= 0),
  add column failing_tasks        text[] not null default '{}',
  -- gets nothing until then; afterwards one task at a time, until one succeeds and this is null again
  add column excluded_until  timestamptz,
  add column excluded_since  timestamptz,
  add column excluded_reason text check (length(excluded_reason) <= 1000),
  -- exclusions without a success in between: each lasts twice as long as the one before
  add column trips integer not null default 0 check (trips >= 0),
  add constraint agent_pause_ends_once check (status_until is null or status = 'paused'),
  add constraint agent_exclusion_has_a_trip check ((excluded_until is null) or (trips >= 1));

-- Few are set aside for a time, so this is nearly empty; whoever serves looks here for the next one that ends.
create index agent_pause_ends on agent_registry (status_until) where status_until is not null;
