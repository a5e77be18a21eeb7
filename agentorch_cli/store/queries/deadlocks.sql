-- Who waits for whom, what was found about it, and what is done about it.
--
-- Lock order as everywhere: tasks by id, then attempts, then deadlocks.


-- name: waiting_news
-- The moment of a look, whether anybody works, and whether there is anything to tidy up after it.
select
  now() as at,
  exists (select 1 from task_attempts where status in ('sent', 'accepted')) as has_work,
  exists (select 1 from deadlocks where resolved_at is null) as has_open,
  exists (select 1 from forward_references f join task_distributions t on t.task_id = f.depends_on) as has_arrived;


-- name: lock_deadlocks
-- One monitor at a time records or resolves, so that none records anew what another has just resolved.
select pg_advisory_xact_lock(7203917454);


-- name: waiting_agents
-- Who could serve, and for how long those have been away that are.
select
  agent_id, pool, capabilities, slots,
  case when node_id is null
    then extract(epoch from now() - coalesce(disconnected_at, created_at))::float8 end as away_s,
  metadata ->> 'lend' as lend, metadata ->> 'park' as park
from agent_registry;


-- name: waiting_tasks
-- Those of tasks $1 that are not over, and what is ready that somebody may wait for, or that agents who
-- are here (away for less than $2 seconds) may not be able to do. All else that is ready holds nothing,
-- keeps nobody waiting and runs when its turn comes: a backlog of a million such tasks costs nothing here.
-- Of those that nobody can do, hold nothing and keep nobody waiting, the first 1,000 of each demand stand for all:
-- `weight` is how many each of them stands for.
with demands as materialized (
  select
    d.pool, d.required_capabilities, d.alike,
    exists (
      select 1 from agent_registry a
      where a.pool = d.pool and a.capabilities @> d.required_capabilities
        and (a.node_id is not null or now() - coalesce(a.disconnected_at, a.created_at) < $2 * interval '1 second')
    ) as is_served
  from (
    select
      pool, required_capabilities,
      count(*) filter (
        where not (has_dependents or parent_id is not null or max_agents > 1 or coverage = 'team')) as alike
    from task_distributions
    where wanted > 0
    group by pool, required_capabilities
  ) as d
),
unserved as (
  select u.task_id, u.alike
  from (
    select
      t.task_id, d.alike, row_number() over (partition by t.pool, t.required_capabilities order by t.seq) as place
    from task_distributions t
    join demands d on d.pool = t.pool and d.required_capabilities = t.required_capabilities
    where t.wanted > 0 and not d.is_served
      and (select bool_or(not is_served) from demands)  -- else nothing of the backlog is read for it
      and not (t.has_dependents or t.parent_id is not null or t.max_agents > 1 or t.coverage = 'team')
  ) as u
  where u.place <= 1000
),
seen as (
  select unnest($1::text[]) as task_id
  union
  select t.task_id
  from task_distributions t
  where t.wanted > 0
    and (t.has_dependents or t.parent_id is not null or t.max_agents > 1 or t.coverage = 'team')
  union
  select task_id from unserved
)
select
  t.task_id, status, pool, required_capabilities, coverage, min_agents, max_agents, on_dependency_failure, priority,
  restarts, generation, options ->> 'on_deadlock' as on_deadlock,
  extract(epoch from now() - created_at)::float8 as age_s,
  case when started_at is not null then extract(epoch from now() - started_at)::float8 else 0 end as work_s,
  case when u.alike > 1000 then u.alike / 1000.0::float8 end as weight
from task_distributions t
join seen s on s.task_id = t.task_id
left join unserved u on u.task_id = t.task_id
where status in ('blocked', 'pending', 'running');


-- name: waiting_edges
-- What each blocked task still waits for, its ids in one text: a million of them are read in a second.
select task_id, string_agg(depends_on, E'\x1f') as depends_on
from task_dependencies
group by task_id;


-- name: waiting_attempts
-- Live attempts that wait for their sub-tasks, or for a slot to go on.
select
  a.message_id, a.task_id, a.agent_id, a.slot, a.is_parked, a.is_lent, a.awaits,
  extract(epoch from now() - coalesce(a.waits_since, a.wants_slot_since))::float8 as waited_s,
  (select count(*)::integer from task_attempts o
   where o.task_id = a.task_id and o.status in ('sent', 'accepted') and o.waits_since is null and not o.is_parked)
  as others_at_work
from task_attempts a
where a.status in ('sent', 'accepted') and (a.waits_since is not null or a.wants_slot_since is not null)
order by a.message_id;


-- name: overdue_attempts
-- Live attempts past twice their time limit, which nobody took away.
select a.message_id, a.task_id, a.agent_id, t.timeout_seconds,
  extract(epoch from now() - a.accepted_at)::float8 as ran_s
from task_attempts a
join task_distributions t on t.task_id = a.task_id
where a.status = 'accepted' and a.accepted_at + 2 * t.timeout_seconds * interval '1 second' < now();


-- name: forward_ages
-- For how long ids that do not exist have been waited for.
select depends_on, extract(epoch from now() - min(noted_at))::float8 as waited_s
from forward_references group by depends_on;


-- name: arrived_references
-- Tasks that came although somebody had noted that they did not exist: they have dependents.
with arrived as (
  delete from forward_references f
  using task_distributions t
  where f.depends_on = t.task_id
  returning f.depends_on
)
update task_distributions t
set has_dependents = true
from (select distinct depends_on from arrived) a
where t.task_id = a.depends_on
returning t.task_id, t.status;


-- name: note_forward_references
-- These ids do not exist yet.
insert into forward_references (depends_on, task_id)
select * from unnest($1::text[], $2::text[])
on conflict do nothing;


-- name: look_for_deadlocks
-- Somebody should look: edges were added between tasks that exist.
select pg_notify('agentorch_deadlock', $1);


-- name: note_deadlocks
-- One row per deadlock however often it is seen; those that are new are told once.
with input as (
  select * from unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::text[], $9::text[])
    as i (deadlock_id, kind, mark, members, edges, reason, waited_s, victims, cost)
),
noted as (
  insert into deadlocks as d (deadlock_id, kind, mark, members, edges, reason, waited_s, victims, cost, node_id)
  select
    deadlock_id, kind, mark, members::text[], edges::jsonb, reason, waited_s, victims::text[], cost::jsonb, $10
  from input i
  -- what was resolved since the look is not there any more
  where not exists (select 1 from deadlocks o where o.mark = i.mark and o.resolved_at >= $11)
  order by mark
  on conflict (mark) where resolved_at is null
  do update set waited_s = excluded.waited_s, members = excluded.members, reason = excluded.reason
  returning d.deadlock_id, d.mark, d.kind, d.members, d.reason, xmax = 0 as is_new
),
logged as (
  insert into events (kind, task_id, node_id, data)
  select 'deadlock_detected', m.task_id, $10,
    json_build_object('deadlock_id', n.deadlock_id, 'kind', n.kind, 'message', n.reason)
  from noted n, unnest(n.members[1:100]) as m (task_id)
  where n.is_new
)
select deadlock_id, mark, kind, is_new from noted;


-- name: dissolve_deadlocks
-- Open deadlocks that were not seen any more (all but the marks $1) and that are older than the look at $2.
update deadlocks
set resolved_at = now(), resolution = 'dissolved by itself'
where resolved_at is null and not mark = any($1::text[]) and detected_at < $2
returning deadlock_id, mark;


-- name: resolve_deadlocks
-- What was done about deadlocks; they are over.
with done as (
  update deadlocks d
  set resolved_at = now(), resolution = i.resolution, resolved_by = $4, victims = i.victims::text[]
  from unnest($1::text[], $2::text[], $3::text[]) as i (mark, resolution, victims)
  where d.mark = i.mark and d.resolved_at is null
  returning d.deadlock_id, d.kind, d.members, d.resolution
),
logged as (
  insert into events (kind, task_id, node_id, data)
  select 'deadlock_resolved', m.task_id, $5,
    json_build_object('deadlock_id', d.deadlock_id, 'kind', d.kind, 'message', d.resolution)
  from done d, unnest(d.members[1:100]) as m (task_id)
)
select deadlock_id from done;


-- name: edges_among
-- The dependencies that these tasks wait for now.
select task_id, depends_on from task_dependencies
where task_id = any($1::text[]) and depends_on = any($1::text[]);


-- name: fail_deadlocked
-- Tasks that this transaction has locked end with the deadlock as the reason, and wait for nothing any more.
with failed as (
  update task_distributions t
  set status = 'failed', completed_at = greatest(now(), t.started_at), wanted = 0, is_delayed = false, error = i.error::jsonb
  from unnest($1::text[], $2::text[]) as i (task_id, error)
  where t.task_id = i.task_id and t.status in ('blocked', 'pending', 'running')
  returning t.task_id, t.has_dependents, t.error
),
gone as (
  delete from task_dependencies e using failed f where e.task_id = f.task_id
),
logged as (
  insert into events (kind, task_id, node_id, data)
  select 'task_failed', task_id, $3, error::json from failed
),
ended as (
  -- whoever asked may die before the dependents are told: then the leader tells them
  select pg_notify('agentorch_ended', case when octet_length(ids) < 7900 then ids else '*' end)
  from (select string_agg(task_id, E'\n') as ids from failed where has_dependents) as n
  where ids is not null
)
select task_id, has_dependents from failed, (select count(*) from ended) as told;


-- name: park_attempts
-- Attempts that wait give their slot back; if $2 they need none to go on.
update task_attempts
set is_parked = true, is_lent = is_lent or $2
where message_id = any($1::uuid[]) and status in ('sent', 'accepted') and not is_parked
returning message_id;


-- name: requeue_victim
-- A task that this transaction has locked is stopped, and tried again after $2 seconds.
with stopped as (
  update task_attempts
  set status = 'cancelled', finished_at = greatest(now(), sent_at, accepted_at), error = $3::jsonb
  where task_id = $1 and status in ('sent', 'accepted')
  returning message_id
),
requeued as (
  update task_distributions
  set
    status = 'pending', wanted = first_wave, run_at = now() + $2 * interval '1 second', is_delayed = $2 > 0,
    restarts = restarts + 1, assigned_agents = '{}'
  where task_id = $1 and status = 'running'
  returning task_id
),
logged as (
  insert into events (kind, task_id, node_id, data)
  select 'task_requeued', task_id, $4, $3::json from requeued
)
select array(select message_id from stopped) as messages from requeued;


-- name: stop_attempts
-- Live attempts of a task are stopped.
update task_attempts
set status = 'cancelled', finished_at = greatest(now(), sent_at, accepted_at), error = $2::jsonb
where task_id = $1 and status in ('sent', 'accepted')
returning message_id;


-- name: show_deadlocks
-- Deadlocks, newest first; if $2 only those that are open.
select
  deadlock_id::text as deadlock_id, kind, members, edges::text as edges, reason, waited_s, victims, cost::text as cost,
  resolution, resolved_by, node_id, detected_at, resolved_at, null::text /*cursor*/ as place,
  (
    select json_object_agg(t.task_id, t.name)::text
    from task_distributions t
    where t.task_id = any(k.members[1:50]) and t.name is not null
  ) as names
from deadlocks k
where ($1::text is null or deadlock_id::text = $1) and (not $2 or resolved_at is null)
  and ($3::text is null or $3 = any(members))
  and true /*filter*/
order by k.detected_at desc, k.deadlock_id desc /*order*/
limit $4;


-- name: open_deadlocks
-- How many there are now; what nobody can serve has a line of its own.
select count(*)::integer as number, string_agg(distinct kind, ', ') as kinds
from deadlocks where resolved_at is null and kind <> 'unsatisfiable';


-- name: lock_edges
-- One dependency at a time is added between tasks that exist, so that two cannot close a cycle together.
select pg_advisory_xact_lock(7203917453);


-- name: lock_ends
-- The two ends of a new dependency.
select task_id, status, depends_on, on_dependency_failure from task_distributions
where task_id = any($1::text[])
order by task_id
for no key update;


-- name: waits_above
-- What task $1 waits for, however far up.
with recursive above (task_id) as (
  select $1::text
  union
  select d.task_id
  from above a
  join task_distributions t on t.task_id = a.task_id and t.status = 'blocked'
  cross join lateral unnest(t.depends_on) as d (task_id)
)
select t.task_id, t.depends_on
from above a join task_distributions t on t.task_id = a.task_id
where t.status = 'blocked';


-- name: add_dependency
-- Task $1 depends on $2 too; if $3 it waits for it.
with linked as (
  update task_distributions
  set
    depends_on = depends_on || $2::text, dependency_names = dependency_names || $2::text,
    waiting_on = waiting_on + case when $3 then 1 else 0 end,
    status = case when $3 then 'blocked' else status end,
    wanted = case when $3 then 0 else wanted end,
    is_delayed = is_delayed and not $3
  where task_id = $1 and status in ('blocked', 'pending')
  returning task_id
),
edge as (
  insert into task_dependencies (depends_on, task_id) select $2, task_id from linked where $3
  on conflict do nothing
),
marked as (
  update task_distributions set has_dependents = true where task_id = $2
),
logged as (
  insert into events (kind, task_id, node_id, data)
  select 'dependency_added', task_id, $4, json_build_object('depends_on', $2::text) from linked
)
select task_id from linked;
