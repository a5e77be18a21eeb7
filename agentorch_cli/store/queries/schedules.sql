-- Schedules: tasks that are submitted again and again. A schedule's row is locked before any task.


-- name: put_schedule
-- Store a schedule; one of that name is changed only if $8, and then keeps what it counted.
with stored as (
  insert into schedules as s (name, cron, time_zone, tasks, missed, overlap, next_at)
  values ($1, $2, $3, $4::json, $5, $6, $7)
  on conflict (name) do update set
    cron = excluded.cron, time_zone = excluded.time_zone, tasks = excluded.tasks, missed = excluded.missed,
    overlap = excluded.overlap, next_at = excluded.next_at, retry_at = null, error = null, updated_at = now()
  where $8
  returning s.name
),
hinted as (
  select pg_notify('agentorch_schedules', s.name) from stored s
)
select s.name from stored s, hinted;


-- name: show_schedules
-- Schedules by name; those of names $1, or all.
select
  name, cron, time_zone, tasks, missed, overlap, is_paused, next_at, retry_at, error, last_at,
  last_submission_id::text as last_submission_id, last_tasks, runs, skipped, created_at, updated_at, now() as now,
  null::text /*cursor*/ as place
from schedules s
where ($1::text[] is null or name = any($1))
  and true /*filter*/
order by s.name /*order*/
limit $2;


-- name: failing_schedules
-- Those that cannot run, and why.
select name, error, retry_at from schedules
where error is not null and not is_paused
order by name
limit $1;


-- name: due_schedule
-- Lock the schedule that has been due for longest, unless another node is at it.
select name, cron, time_zone, tasks, missed, overlap, next_at, last_tasks, error, now() as now
from schedules
where not is_paused and greatest(next_at, retry_at) <= now()
order by greatest(next_at, retry_at)
limit 1
for update skip locked;


-- name: lock_schedule
-- Lock one schedule, whenever it is due.
select name, tasks, next_at, now() as now
from schedules
where name = $1
for update;


-- name: next_schedule
-- In how many seconds the next one is due; negative where it is.
select extract(epoch from min(greatest(next_at, retry_at)) - now())::float8 as seconds
from schedules
where not is_paused;


-- name: move_schedule
-- A schedule ran for the time $2 (null: it did not), left $3 runs out, and is due at $4 next.
with moved as (
  update schedules
  set
    next_at = $4, retry_at = null, error = null,
    last_at = coalesce($2, last_at),
    last_submission_id = case when $2::timestamptz is null then last_submission_id else $5 end,
    last_tasks = case when $2::timestamptz is null then last_tasks else $6::text[] end,
    runs = runs + case when $7 then 1 else 0 end,
    skipped = skipped + $3
  where name = $1
)
insert into events (kind, node_id, data)
select i.kind, $8, json_build_object('schedule', $1::text, 'at', $2::timestamptz, 'skipped', $3::integer,
  'submission_id', $5::uuid, 'tasks', cardinality($6::text[]))
from (values ('schedule_ran', $7::boolean), ('schedule_skipped', $3::integer > 0)) as i (kind, is_so)
where i.is_so;


-- name: note_sick_schedule
-- A schedule cannot run, for the reason $2. It keeps its time, and is tried again in $3 seconds.
update schedules
set error = $2, retry_at = now() + $3 * interval '1 second'
where name = $1;


-- name: pause_schedules
-- These run no more until somebody resumes them.
with paused as (
  update schedules set is_paused = true, updated_at = now()
  where name = any($1::text[]) and not is_paused
  returning name
),
hinted as (
  select pg_notify('agentorch_schedules', p.name) from paused p
)
select p.name, (select count(*) from hinted) as told from paused p;


-- name: lock_paused_schedules
-- Those of these that are paused.
select name, cron, time_zone, now() as now
from schedules
where name = any($1::text[]) and is_paused
order by name
for update;


-- name: resume_schedules
-- These run again, from the times $2 on: what passed meanwhile is not made up for.
with resumed as (
  update schedules s
  set is_paused = false, next_at = i.next_at, retry_at = null, error = null, updated_at = now()
  from unnest($1::text[], $2::timestamptz[]) as i (name, next_at)
  where s.name = i.name
  returning s.name
),
hinted as (
  select pg_notify('agentorch_schedules', r.name) from resumed r
)
select r.name, (select count(*) from hinted) as told from resumed r;


-- name: remove_schedules
-- These are gone; what they submitted stays.
with gone as (
  delete from schedules where name = any($1::text[]) returning name
),
hinted as (
  select pg_notify('agentorch_schedules', g.name) from gone g
)
select g.name, (select count(*) from hinted) as told from gone g;
