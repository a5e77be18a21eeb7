-- Agents that get nothing new for a while: paused and draining by a person, excluded by the breaker.


-- name: pause_agents
-- Nothing new for agents $1 until $3 seconds from now, or (null) until they are resumed.
with paused as (
  update agent_registry
  set status = 'paused', status_since = now(), status_reason = $2,
      status_until = now() + $3::float8 * interval '1 second', updated_at = now()
  where agent_id = any($1::text[])
  returning agent_id, status_reason, status_until
),
logged as (
  insert into events (kind, agent_id, node_id, data)
  select 'agent_paused', agent_id, $4, json_build_object('reason', status_reason, 'until', status_until) from paused
),
hinted as (
  select pg_notify('agentorch_fleet', '*') where exists (select from paused)
)
select agent_id from paused, hinted;


-- name: drain_agents
-- Nothing new for agents $1, which are told to finish what they hold, until they are resumed.
with draining as (
  update agent_registry
  set status = 'draining', status_since = now(), status_reason = $2, status_until = null, updated_at = now()
  where agent_id = any($1::text[])
  returning agent_id, status_reason
),
logged as (
  insert into events (kind, agent_id, node_id, data)
  select 'agent_draining', agent_id, $3, json_build_object('reason', status_reason) from draining
),
hinted as (
  select pg_notify('agentorch_fleet', '*') where exists (select from draining)
)
select agent_id from draining, hinted;


-- name: resume_agents
-- Agents $1 get work again, whyever they did not; the breaker forgets what it counted.
with resumed as (
  update agent_registry
  set
    status = case
      when status not in ('paused', 'draining') then status when node_id is null then 'offline' else 'online' end,
    status_since = null, status_reason = null, status_until = null, consecutive_failures = 0, failing_tasks = '{}',
    excluded_until = null, excluded_since = null, excluded_reason = null, trips = 0, updated_at = now()
  where agent_id = any($1::text[]) and (status in ('paused', 'draining') or excluded_until is not null)
  returning agent_id
),
logged as (
  insert into events (kind, agent_id, node_id, data)
  select 'agent_resumed', agent_id, $3, json_build_object('reason', $2::text) from resumed
),
hinted as (
  select pg_notify('agentorch_fleet', '*') where exists (select from resumed)
)
select agent_id from resumed, hinted;


-- name: end_pauses
-- Pauses whose time is over end; what the breaker says of the agents stays.
with over as (
  update agent_registry
  set status = case when node_id is null then 'offline' else 'online' end,
      status_since = null, status_reason = null, status_until = null, updated_at = now()
  where status_until <= now()
  returning agent_id
),
logged as (
  insert into events (kind, agent_id, node_id, data)
  select 'agent_resumed', agent_id, $1, json_build_object('reason', 'the pause is over') from over
),
hinted as (
  select pg_notify('agentorch_fleet', '*') where exists (select from over)
)
select agent_id from over, hinted;


-- name: held_by_agents
-- The tasks that agents hold.
select distinct task_id from task_attempts where agent_id = any($1::text[]) and status in ('sent', 'accepted');


-- name: exclude_agents
-- Agents that tripped get nothing for so many seconds; answers in how many that is over. Said again,
-- because nobody knows whether it was stored, it changes nothing.
with input as (
  select * from unnest($1::text[], $2::float8[], $3::integer[], $4::text[], $5::integer[], $6::text[])
    as i (agent_id, seconds, failures, tasks, trips, reason)
),
excluded as (
  update agent_registry a
  set excluded_since = now(), excluded_until = now() + i.seconds * interval '1 second',
      excluded_reason = i.reason, consecutive_failures = i.failures, failing_tasks = i.tasks::text[],
      trips = i.trips, updated_at = now()
  from input i
  where a.agent_id = i.agent_id
    and (a.excluded_until is null or a.excluded_until <= now() or a.trips <> i.trips)
  returning a.agent_id, a.excluded_until, a.excluded_reason, a.trips
),
logged as (
  insert into events (kind, agent_id, node_id, data)
  select
    'agent_excluded', agent_id, $7,
    json_build_object('reason', excluded_reason, 'until', excluded_until, 'trips', trips)
  from excluded
),
hinted as (
  select pg_notify('agentorch_fleet', '*') where exists (select from excluded)
)
select agent_id, extract(epoch from excluded_until - now())::float8 as excluded_s from excluded, hinted;


-- name: readmit_agents
-- A probe went well: agents $1 get work like everybody.
with readmitted as (
  update agent_registry
  set excluded_until = null, excluded_since = null, excluded_reason = null, trips = 0,
      consecutive_failures = 0, failing_tasks = '{}', updated_at = now()
  where agent_id = any($1::text[]) and excluded_until is not null
  returning agent_id
),
logged as (
  insert into events (kind, agent_id, node_id) select 'agent_readmitted', agent_id, $2 from readmitted
),
hinted as (
  select pg_notify('agentorch_fleet', '*') where exists (select from readmitted)
)
select agent_id from readmitted, hinted;


-- name: count_failures
-- What agents that are not excluded failed in a row by now, and with which tasks.
update agent_registry a
set consecutive_failures = i.failures, failing_tasks = i.tasks::text[]
from unnest($1::text[], $2::integer[], $3::text[]) as i (agent_id, failures, tasks)
where a.agent_id = i.agent_id and a.excluded_until is null;


-- name: note_probes
-- Agents that were excluded were given one task; each probe is noted once.
insert into events (kind, task_id, agent_id, message_id, node_id)
select 'agent_probed', i.task_id, i.agent_id, i.message_id, $4
from unnest($1::text[], $2::text[], $3::uuid[]) as i (task_id, agent_id, message_id)
where not exists (
  select from events e
  where e.task_id = i.task_id and e.message_id = i.message_id and e.kind = 'agent_probed'
);


-- name: waits_for_set_aside
-- Capabilities that ready tasks want and that nobody has who is connected and may be given work,
-- with those who have them and are set aside: their status, and until when.
select
  t.pool, t.required_capabilities, t.number, s.agents
from (
  select pool, required_capabilities, count(*) as number
  from task_distributions where wanted > 0 and not is_delayed and coverage = 'each'
  group by pool, required_capabilities
) t
cross join lateral (
  select
    array_agg(
      a.agent_id || ' (' || case
        when a.status in ('paused', 'draining') then a.status
          || coalesce(' until ' || to_char(a.status_until at time zone 'UTC', 'HH24:MI:SS "UTC"'), '')
        else 'excluded until ' || to_char(a.excluded_until at time zone 'UTC', 'HH24:MI:SS "UTC"') end || ')'
      order by a.agent_id
    ) filter (where a.status in ('paused', 'draining') or a.excluded_until > now()) as agents,
    count(*) filter (
      where a.status = 'online' and (a.excluded_until is null or a.excluded_until <= now())
    ) as able
  from agent_registry a where a.pool = t.pool and a.capabilities @> t.required_capabilities and a.node_id is not null
) s
where s.able = 0 and s.agents is not null
order by t.number desc
limit 5;


-- name: declined_by_all
-- The first $1 ready tasks that everybody has declined who is registered and could do them.
select t.task_id, t.declined_by
from task_distributions t
where t.wanted > 0 and t.coverage = 'each' and t.declined_by is not null
  and not exists (
    select 1 from agent_registry a
    where a.pool = t.pool and a.capabilities @> t.required_capabilities and a.agent_id <> all(t.declined_by))
  and exists (
    select 1 from agent_registry a where a.pool = t.pool and a.capabilities @> t.required_capabilities)
order by t.urgency, t.remaining_path desc, t.seq
limit $1;


-- name: ask_again
-- Ready tasks that somebody has declined go to everybody again who could do them.
with asked as (
  update task_distributions set declined_by = null
  where task_id = any($1::text[]) and status = 'pending' and declined_by is not null
  returning task_id
),
logged as (
  insert into events (kind, task_id, node_id) select 'task_retried', task_id, $2 from asked
)
select task_id from asked;
