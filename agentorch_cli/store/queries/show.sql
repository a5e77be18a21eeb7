-- What people look at. None of this is on the hot path.


-- name: show_agents
-- The fleet as `agent list` shows it, with what its ledger says of everything that each agent did.
select
  a.agent_id, a.agent_type as type, a.pool, a.capabilities, a.status, a.slots, a.performance_hourly, a.completed, a.failed,
  a.node_id, a.exec, a.metadata::text as metadata, a.last_heartbeat, a.created_at,
  a.status_since, a.status_reason, a.status_until, a.excluded_since, a.excluded_until, a.excluded_reason,
  a.consecutive_failures, a.trips,
  least(coalesce(l.busy, 0), a.slots) as busy, greatest(coalesce(l.busy, 0) - a.slots, 0) as queued,
  coalesce(l.tasks, '{}') as working_on,
  agentorch_score(coalesce(o.rights, 0), coalesce(o.trials, 0)) as performance_score, o.latency,
  o.completed / nullif(o.completed + o.failed + o.lost, 0) as success_rate, null::text /*cursor*/ as place
from agent_registry a
left join agent_ledger o on o.agent_id = a.agent_id and o.skill = '' and o.task_type = ''
left join (
  select
    agent_id, count(*) filter (where not is_parked)::integer as busy, array_agg(task_id order by task_id) as tasks
  from task_attempts where status in ('sent', 'accepted') group by agent_id
) l on l.agent_id = a.agent_id
where ($1::text[] is null or a.agent_id = any($1))
  and ($2::text is null or $2 = any(a.capabilities))
  and true /*filter*/
order by a.agent_id /*order*/
limit $3;


-- name: show_tasks
-- Tasks, newest first, without their payloads.
select
  task_id, name, pool, task_type as type, status, priority, required_capabilities, depends_on, waiting_on, attempts_made,
  failures, assigned_agents, created_at, started_at, completed_at, run_at, deadline, error::text as error,
  submission_id::text as submission_id, parent_id, idempotency_key, options -> 'labels' as labels,
  null::text /*cursor*/ as place,
  (select max(a.progress) from task_attempts a
   where a.task_id = t.task_id and a.status in ('sent', 'accepted') and t.status = 'running') as progress
from task_distributions t
where true /*filter*/
order by t.seq desc /*order*/
limit $1;


-- name: match_tasks
-- The same tasks by their names only: there may be very many.
select task_id, name, task_type as type, status, null::text /*cursor*/ as place
from task_distributions t
where true /*filter*/
order by t.seq desc /*order*/
limit $1;


-- name: show_task
-- One task with everything that its row keeps.
select
  task_id, name, pool, task_type as type, status, priority, required_capabilities, depends_on, waiting_on, attempts_made,
  failures, assigned_agents, created_at, started_at, completed_at, run_at, deadline, error::text as error,
  submission_id::text as submission_id, parent_id, idempotency_key, timeout_seconds, retries, task_data, result,
  options::text as options,
  (select max(a.progress) from task_attempts a
   where a.task_id = t.task_id and a.status in ('sent', 'accepted')) as progress
from task_distributions t
where task_id = $1;


-- name: results
-- Where tasks stand, and what they brought.
select
  task_id, name, pool, task_type as type, status, priority, required_capabilities, depends_on,
  submission_id::text as submission_id, run_at, assigned_agents, attempts_made, failures, created_at,
  started_at, completed_at, result, error::text as error
from task_distributions
where task_id = any($1::text[]);


-- name: standing
-- Which of these tasks are not final yet.
select task_id, status from task_distributions
where task_id = any($1::text[]) and status not in ('completed', 'failed', 'cancelled', 'skipped');


-- name: statuses
-- How these tasks stand.
select task_id, status, submission_id from task_distributions where task_id = any($1::text[]);


-- name: stored_of
-- What is there of a submission that may have been stored before.
select task_id, name, status from task_distributions
where submission_id = $1 and task_id = any($2::text[]);


-- name: count_tasks
-- How many tasks there are in each state: reads every task, so only where there are not too many.
select status, count(*) as number from task_distributions group by status;


-- name: size_of_tasks
-- About how many tasks are stored, from the size of their table.
select
  case when c.reltuples > 0 and c.relpages > 0 then c.reltuples / c.relpages else 20 end::float8
  * pg_relation_size(c.oid) / current_setting('block_size')::integer as number
from pg_class c where c.oid = 'task_distributions'::regclass;


-- name: estimate_tasks
-- The same for a table of about $1 tasks without reading those that have ended: open ones are counted by
-- the indexes that hold nothing else, ended ones are shared out as the statistics of the table say.
with
ready as (
  select count(*) filter (where status = 'pending') as pending, count(*) filter (where status = 'running') as running
  from task_distributions where wanted > 0
),
delayed as (
  select count(*) as number from task_distributions where is_delayed and wanted = 0
),
live as (
  select count(distinct a.task_id) as number from task_attempts a where a.status in ('sent', 'accepted')
    and not exists (select 1 from task_distributions t where t.task_id = a.task_id and t.wanted > 0)
),
blocked as (
  select count(*) as number from (select distinct task_id from task_dependencies) d
),
opened (status, number) as (
  select 'pending', r.pending + d.number from ready r, delayed d
  union all
  select 'running', r.running + l.number from ready r, live l
  union all
  select 'blocked', number from blocked
),
shares (status, share) as (
  select u.status, u.share
  from pg_stats s, unnest(s.most_common_vals::text::text[], s.most_common_freqs) as u (status, share)
  where s.tablename = 'task_distributions' and s.attname = 'status'
    and s.schemaname = (
      select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.oid = 'task_distributions'::regclass)
    and u.status in ('completed', 'failed', 'cancelled', 'skipped')
)
select status, number from opened
union all
select
  s.status,
  round(greatest(0, $1::float8 - (select sum(number) from opened)) * s.share / (select sum(share) from shares))::bigint
from shares s;


-- name: flow
-- How many tasks came and how many ended in each step of $2 seconds, among the newest $1 events.
select
  floor(extract(epoch from at) / $2::float8)::bigint as step,
  count(*) filter (where kind in ('task_submitted', 'task_retried'))::integer as came,
  count(*) filter (where kind in ('task_completed', 'task_failed', 'task_cancelled', 'task_skipped'))::integer as ended,
  count(*)::integer as events,
  min(at) as first
from (select at, kind from events order by events.tx desc, event_id desc limit $1) newest
where at > now() - $3::float8 * interval '1 second'
group by 1
order by 1;


-- name: oldest_pending
-- Seconds that the ready task which has waited longest has waited.
select extract(epoch from now() - min(greatest(run_at, created_at)))::float8
from task_distributions where wanted > 0 and not is_delayed and status = 'pending';


-- name: unserved_capabilities
-- Required capabilities of ready tasks that no registered agent of their pool has, all together.
select pool, required_capabilities, count(*) as number
from task_distributions t
where wanted > 0 and coverage = 'each'
  and not exists (
    select 1 from agent_registry a where a.pool = t.pool and a.capabilities @> t.required_capabilities)
group by pool, required_capabilities
order by count(*) desc
limit 5;


-- name: pools_with_work
-- Pools that have ready tasks, by one look into the index for each.
with recursive pools (pool) as (
  select min(pool) from task_distributions where wanted > 0
  union all
  select (select min(t.pool) from task_distributions t where t.wanted > 0 and t.pool > p.pool)
  from pools p where p.pool is not null
)
select pool from pools where pool is not null;


-- name: waiting_teams
-- What ready tasks ask of teams.
select pool, required_capabilities, max_agents, count(*) as number
from task_distributions
where wanted > 0 and coverage = 'team'
group by pool, required_capabilities, max_agents
order by count(*) desc
limit 50;


-- name: came_lately
-- About how many tasks came within the last $1 seconds: where they begin is found by halving the span of seq.
with recursive halves (low, high, step) as (
  select min(seq), max(seq), 0 from task_distributions
  union all
  select
    case when m.created_at < now() - $1::float8 * interval '1 second' then m.seq + 1 else h.low end,
    case when m.created_at < now() - $1::float8 * interval '1 second' then h.high else h.low + (h.high - h.low) / 2 end,
    h.step + 1
  from halves h, lateral (
    select t.seq, t.created_at from task_distributions t
    where t.seq >= h.low + (h.high - h.low) / 2 order by t.seq limit 1
  ) m
  where h.low < h.high and h.step < 64
)
select coalesce(max(t.seq) - max(h.low) + 1, 0)::bigint as number
from halves h, (select max(seq) as seq from task_distributions) t
where h.low >= h.high
  and exists (
    select 1 from task_distributions l
    where l.seq = t.seq and l.created_at >= now() - $1::float8 * interval '1 second');


-- name: running_tasks
-- Tasks that agents hold, those that began first in front: how far each is, and what its agent said last.
select
  t.task_id, t.name, t.pool, t.task_type as type, t.status, t.priority, t.required_capabilities, t.assigned_agents,
  t.attempts_made, t.failures, t.created_at, t.started_at, t.deadline, l.progress, l.note
from (
  select
    task_id, max(progress) as progress, min(sent_at) as since,
    (array_agg(note order by accepted_at desc nulls last) filter (where note is not null))[1] as note
  from task_attempts where status in ('sent', 'accepted')
  group by task_id
  order by min(sent_at), task_id
  limit $1
) l
join task_distributions t on t.task_id = l.task_id
where t.status = 'running'
order by l.since, t.task_id;


-- name: tally_submission
-- How many tasks of a submission are in each state; none of them is older than its first task, $2.
select t.status, count(*) as number
from task_distributions t
where t.submission_id = $1
  and t.seq >= (select f.seq from task_distributions f where f.task_id = $2)
group by t.status;


-- name: tally_tasks
-- The same for these tasks.
select status, count(*) as number from task_distributions where task_id = any($1::text[]) group by status;


-- name: running_among
-- Tasks of a submission, or these, that agents hold: those that began first in front.
select
  t.task_id, t.name, t.pool, t.task_type as type, t.status, t.priority, t.required_capabilities, t.assigned_agents,
  t.attempts_made, t.failures, t.created_at, t.started_at, t.deadline, l.progress, l.note
from (
  select
    task_id, max(progress) as progress, min(sent_at) as since,
    (array_agg(note order by accepted_at desc nulls last) filter (where note is not null))[1] as note
  from task_attempts where status in ('sent', 'accepted')
  group by task_id
) l
join task_distributions t on t.task_id = l.task_id
where t.status = 'running' and (t.submission_id = $1 or t.task_id = any($2::text[]))
order by l.since, t.task_id
limit $3;


-- name: recent_tasks
-- Tasks that ended last, among what the newest events and the newest tasks tell; results only where they
-- are short.
select
  task_id, name, pool, task_type as type, status, priority, assigned_agents, attempts_made, failures, created_at,
  started_at, completed_at, error::text as error,
  case when octet_length(result::text) <= 1000 then result end as result
from task_distributions t
where completed_at is not null
  and task_id in (
    (select task_id from (
      select task_id, kind from events order by events.tx desc, event_id desc limit 2000) e
    where kind in ('task_completed', 'task_failed', 'task_cancelled', 'task_skipped')
    limit $1)
    union all
    (select task_id from task_distributions order by seq desc limit $1))
order by completed_at desc, task_id
limit $1;


-- name: show_events
-- The log after a cursor, up to the oldest transaction that is still open; kinds are patterns of LIKE.
select tx::text as tx, event_id, at, kind, task_id, agent_id, message_id, node_id, data
from events
where ($1::text is null or task_id = $1)
  and (tx, event_id) > ($2::text::xid8, $3::bigint)
  and tx < pg_snapshot_xmin(pg_current_snapshot())
  and ($5::text[] is null or kind like any($5))
  and ($6::text is null or agent_id = $6)
  and ($7::timestamptz is null or at >= $7)
  and ($8::timestamptz is null or at < $8)
order by events.tx, event_id
limit $4;


-- name: newest_events
-- The end of the log, newest first, up to the oldest transaction that is still open.
select tx::text as tx, event_id, at, kind, task_id, agent_id, message_id, node_id, data
from events
where ($1::text is null or task_id = $1)
  and tx < pg_snapshot_xmin(pg_current_snapshot())
  and ($2::text[] is null or kind like any($2))
  and ($3::text is null or agent_id = $3)
  and ($5::timestamptz is null or at >= $5)
  and ($6::timestamptz is null or at < $6)
order by events.tx desc, event_id desc
limit $4;


-- name: ends_of_events
-- The first and the last transaction of the log.
select
  (select tx::text from events order by events.tx, event_id limit 1) as first,
  (select tx::text from events order by events.tx desc, event_id desc limit 1) as last;


-- name: event_near
-- When the first event was written whose transaction is not before $1.
select at from events where tx >= $1::text::xid8
order by tx, event_id
limit 1;


-- name: event_horizon
-- Before which transaction everything is seen: what comes after it is news.
select pg_snapshot_xmin(pg_current_snapshot())::text as tx;


-- name: newest_event
-- The end of the log: whether it has moved.
select tx::text as tx, event_id from events
where tx < pg_snapshot_xmin(pg_current_snapshot())
order by events.tx desc, event_id desc
limit 1;


-- name: task_story
-- What happened to one task, in order. Its transitions are made one after the other, under the lock
-- of its row, so nothing can come in between later: it need not wait for other transactions.
select tx::text as tx, event_id, at, kind, task_id, agent_id, message_id, node_id, data
from events
where task_id = $1
order by event_id
limit $2;


-- name: show_nodes
-- The serve processes of the last hour: whether each leads its pool, or does what is there once for all
-- pools, and how many of its agents' slots are busy.
select
  n.node_id, n.host, n.port, n.pid, n.version, n.pool, n.started_at, n.heartbeat_at, n.expires_at > now() as is_live,
  coalesce(l.scheduler, false) as is_leader, coalesce(l.monitor, false) as is_chief, coalesce(a.agents, 0) as agents,
  coalesce(a.slots, 0) as slots, coalesce(w.busy, 0) as busy
from nodes n
left join (
  select node_id, bool_or(name <> 'monitor') as scheduler, bool_or(name = 'monitor') as monitor
  from leases where expires_at > now() group by node_id
) l on l.node_id = n.node_id
left join (
  select node_id, count(*)::integer as agents, sum(slots)::integer as slots
  from agent_registry where node_id is not null group by node_id
) a on a.node_id = n.node_id
left join (
  select node_id, count(*)::integer as busy
  from task_attempts where status in ('sent', 'accepted') and not is_parked group by node_id
) w on w.node_id = n.node_id
where n.expires_at > now() - interval '1 hour'
order by n.pool, n.started_at;


-- name: clock
-- The only clock.
select now() as now;


-- name: show_attempts
-- All attempts of one task, oldest first.
select
  message_id, agent_id, attempt, status, role, node_id, progress, note, sent_at, accepted_at, finished_at, result,
  error::text as error, confidence, usage::text as usage, usage_so_far::text as usage_so_far
from task_attempts
where task_id = $1
order by attempt;


-- name: capability_sets
-- What the fleet can do, each set of each pool once, with the first of those who have it.
select pool, min(agent_id) as agent_id, capabilities from agent_registry group by pool, capabilities;


-- name: census
-- The fleet in numbers, each from an index that holds only what is open.
select
  (select count(*) from task_distributions where wanted > 0 and not is_delayed) as ready,
  (select count(*) from task_distributions where is_delayed) as delayed,
  (select count(*) from task_distributions
   where depends_on <> '{}' and status <> 'completed' and status = 'blocked') as blocked,
  (select count(distinct task_id) from task_attempts where status in ('sent', 'accepted')) as running,
  (select coalesce(extract(epoch from now() - min(run_at)), 0)::float8
   from task_distributions where wanted > 0 and not is_delayed and status = 'pending') as oldest_ready_seconds,
  (select count(*) from deadlocks where resolved_at is null) as deadlocks_open,
  (select count(*) from consensus_decisions where status = 'pending') as votes_open,
  pg_database_size(current_database()) as database_size_bytes;
