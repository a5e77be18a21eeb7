-- Taking old history away, in small batches, and what is known of the database itself.


-- name: prune_bounds
-- Where pruning ends: tasks that ended before `before`, and came before the newest $2 that have ended.
select
  now() - $1::float8 * interval '1 second' as before,
  case when $2::bigint <= 0 then null else coalesce((
    select seq from task_distributions where completed_at is not null order by seq desc offset $2::bigint - 1 limit 1
  ), 0) end as keep_from;


-- name: prune_candidates
-- The next $4 tasks after place $3, oldest first: whether each is old enough, and whether it waits alone.
-- A task is kept with the parent that waits for it, and with its own sub-tasks as long as those are open.
select
  t.seq, t.task_id, t.created_at, t.has_dependents,
  coalesce(t.completed_at < $1::timestamptz, false) and ($2::bigint is null or t.seq < $2::bigint)
    and not exists (
      select from task_distributions p
      where p.task_id = t.parent_id and p.status in ('blocked', 'pending', 'running'))
    and not exists (
      select from task_distributions c
      where c.parent_id = t.task_id and c.status in ('blocked', 'pending', 'running')) as is_old
from task_distributions t
where t.seq > $3::bigint
order by t.seq
limit $4::integer;


-- name: lock_to_prune
-- Of tasks $1 those that have still ended before $2, held so that nobody begins to depend on them.
select task_id, has_dependents
from task_distributions
where task_id = any($1::text[]) and completed_at < $2::timestamptz
order by task_id
for update skip locked;


-- name: needed_inputs
-- Those of tasks $1 whose results others may still ask for: open tasks, and tasks that could be tried
-- again and are not old enough themselves ($2, $3 as in prune_candidates).
select distinct d.task_id
from task_distributions t
cross join lateral unnest(t.depends_on) as d (task_id)
where t.depends_on <> '{}' and t.indexed_status is not null
  and (t.completed_at is null or t.completed_at >= $2::timestamptz or t.seq >= $3::bigint)
  and d.task_id = any($1::text[]);


-- name: prune_tasks
-- Delete tasks $1 with all that belongs to them alone; what budgets, agents and days have summed up stays.
with attempts as (
  delete from task_attempts where task_id = any($1::text[]) returning message_id
),
funding as (
  delete from attempt_funding f using attempts a where f.message_id = a.message_id
),
purses as (
  delete from budgets where scope = 'task' and key = any($1::text[])
),
logged as (
  delete from events where task_id = any($1::text[]) returning 1
),
decided as (
  delete from consensus_decisions where task_id = any($1::text[]) returning 1
),
edges as (
  delete from task_dependencies where depends_on = any($1::text[])
),
gone as (
  delete from task_distributions where task_id = any($1::text[]) returning 1
)
select
  (select count(*) from gone) as tasks, (select count(*) from attempts) as attempts,
  (select count(*) from logged) as events, (select count(*) from decided) as decisions;


-- name: count_prunable
-- What prune_tasks would delete with tasks $1.
select
  cardinality($1::text[])::bigint as tasks,
  (select count(*) from task_attempts where task_id = any($1::text[])) as attempts,
  (select count(*) from events where task_id = any($1::text[])) as events,
  (select count(*) from consensus_decisions where task_id = any($1::text[])) as decisions;


-- name: prune_events
-- Look at the next $4 events after place ($2, $3) of the log; delete those from before $1 that belong to
-- no task that is kept.
with looked as (
  select tx, event_id, at, task_id from events
  where (tx, event_id) > ($2::text::xid8, $3::bigint)
  order by tx, event_id
  limit $4::integer
),
gone as (
  delete from events e using looked o
  where e.tx = o.tx and e.event_id = o.event_id and o.at < $1::timestamptz
    and (o.task_id is null or not exists (
      select from task_distributions t where t.task_id = o.task_id))
  returning 1
)
select
  (select count(*) from gone) as events, (select count(*) from looked) as looked,
  (select coalesce(bool_and(at >= $1::timestamptz), true) from looked) as is_young,
  last.tx::text as tx, last.event_id
from (values (1)) as one (row)
left join lateral (select tx, event_id from looked order by tx desc, event_id desc limit 1) as last on true;


-- name: prune_rest
-- Delete proposals that closed before $1, and deadlocks that were resolved before.
with closed as (
  delete from consensus_decisions
  where task_id is null and status <> 'pending' and decided_at < $1::timestamptz
  returning 1
),
resolved as (
  delete from deadlocks where resolved_at < $1::timestamptz returning 1
)
select (select count(*) from closed) as decisions, (select count(*) from resolved) as deadlocks;


-- name: count_rest
-- What prune_events and prune_rest would delete from before $1, besides the events of tasks that go themselves.
select
  (select count(*) from events e
   where e.at < $1::timestamptz
     and (e.task_id is null or not exists (
       select from task_distributions t where t.task_id = e.task_id))) as events,
  (select count(*) from consensus_decisions
   where task_id is null and status <> 'pending' and decided_at < $1::timestamptz) as decisions,
  (select count(*) from deadlocks where resolved_at < $1::timestamptz) as deadlocks;


-- name: note_maintenance
-- Write down that something was done for the database.
insert into maintenance as m (what, data)
values ($1, $2::jsonb)
on conflict (what) do update set at = now(), data = excluded.data;


-- name: show_maintenance
-- What was done for the database, and when.
select what, at, data::text as data from maintenance order by what;


-- name: show_database
-- The database as a whole: its server, its size, its connections, and what is old in it.
select
  current_setting('server_version') as server_version,
  current_database() as name,
  pg_database_size(current_database()) as size_bytes,
  pg_postmaster_start_time() as started_at,
  current_setting('max_connections')::integer as max_connections,
  (select count(*) from pg_stat_activity where backend_type = 'client backend')::integer as connections,
  (select extract(epoch from now() - min(xact_start))::float8
   from pg_stat_activity
   where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'
     and backend_type = 'client backend') as oldest_transaction_seconds,
  (select age(datfrozenxid) from pg_database where datname = current_database())::bigint as transaction_age,
  (select json_object_agg(app, number)::text from (
     select coalesce(nullif(application_name, ''), 'unnamed') as app, count(*) as number
     from pg_stat_activity where datname = current_database() and backend_type = 'client backend'
     group by 1 order by 1) as a) as by_application;


-- name: show_wal
-- Bytes of the write-ahead log on the disk; only who may look at the server's files is told.
select sum(size)::bigint as bytes from pg_ls_waldir();


-- name: show_tables
-- The tables by size, with what of them is dead.
select
  c.relname as name, greatest(c.reltuples, coalesce(s.n_live_tup, 0))::bigint as rows,
  pg_total_relation_size(c.oid) as size_bytes, pg_indexes_size(c.oid) as index_bytes,
  coalesce(s.n_dead_tup, 0)::bigint as dead_rows,
  greatest(s.last_vacuum, s.last_autovacuum) as vacuumed_at
from pg_class c
left join pg_stat_user_tables s on s.relid = c.oid
where c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace and c.relname = any($1::text[])
order by 3 desc, 1;
