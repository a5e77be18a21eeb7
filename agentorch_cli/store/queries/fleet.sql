-- Agents, nodes, leases and liveness.


-- name: register_agents
-- Upsert registrations made by a person; a connected agent keeps its connection, and any agent its pool
-- where none is named.
with input as (
  select * from unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[], $8::text[])
    as i (agent_id, agent_type, capabilities, slots, metadata, exec, pool)
),
stored as (
  insert into agent_registry as a (agent_id, agent_type, capabilities, slots, metadata, exec, pool)
  select
    i.agent_id, i.agent_type, i.capabilities::text[], i.slots, i.metadata::jsonb, i.exec,
    coalesce(i.pool, known.pool, 'default')
  from input i left join agent_registry known on known.agent_id = i.agent_id
  on conflict (agent_id) do update set
    agent_type = excluded.agent_type, capabilities = excluded.capabilities, slots = excluded.slots,
    metadata = excluded.metadata, exec = excluded.exec, pool = excluded.pool, updated_at = now()
  returning a.agent_id
),
logged as (
  insert into events (kind, agent_id, node_id) select 'agent_registered', agent_id, $7 from stored
),
hinted as (
  select pg_notify('agentorch_fleet', '*')
)
select agent_id from stored, hinted;


-- name: connect_agent
-- An agent came in by a session: it is online on this node from here on. It stays in its pool where it
-- names none ($9).
with stored as (
  insert into agent_registry as a (
    agent_id, agent_type, capabilities, slots, metadata, status, node_id, session_id, prefetch, connected_at,
    last_heartbeat, pool)
  values ($1, $2, $3, $4, $5::jsonb, 'online', $6, $7, $8, now(), now(), coalesce($9, 'default'))
  on conflict (agent_id) do update set
    agent_type = excluded.agent_type, capabilities = excluded.capabilities, slots = excluded.slots,
    metadata = case when excluded.metadata = '{}' then a.metadata else excluded.metadata end,
    status = case when a.status in ('paused', 'draining') then a.status else 'online' end,
    node_id = excluded.node_id, session_id = excluded.session_id, prefetch = excluded.prefetch,
    connected_at = now(), disconnected_at = null, last_heartbeat = now(), updated_at = now(),
    pool = coalesce($9, a.pool)
  returning
    a.agent_id, a.pool, a.status, a.completed, a.failed, a.consecutive_failures, a.failing_tasks, a.trips,
    extract(epoch from a.excluded_until - now())::float8 as excluded_s, a.excluded_reason
),
logged as (
  insert into events (kind, agent_id, node_id) select 'agent_online', agent_id, $6 from stored
)
select
  agent_id, pool, status, completed, failed, consecutive_failures, failing_tasks, trips, excluded_s,
  excluded_reason
from stored;


-- name: disconnect_agents
-- Sessions ended. A newer session of the same agent stays as it is.
with gone as (
  update agent_registry a
  set status = case when a.status in ('paused', 'draining') then a.status else 'offline' end,
      node_id = null, session_id = null, disconnected_at = now(), updated_at = now()
  from unnest($1::text[], $2::uuid[]) as i (agent_id, session_id)
  where a.agent_id = i.agent_id and a.session_id = i.session_id
  returning a.agent_id
),
logged as (
  insert into events (kind, agent_id, node_id) select 'agent_offline', agent_id, $3 from gone
)
select agent_id from gone;


-- name: remove_agents
-- Take agents out of the registry; those with live work only when forced. What is known of them goes too.
with gone as (
  delete from agent_registry a
  where a.agent_id = any($1::text[])
    and ($2 or not exists (
      select 1 from task_attempts t where t.agent_id = a.agent_id and t.status in ('sent', 'accepted')))
  returning a.agent_id
),
known as (
  select l.agent_id, l.skill, l.task_type
  from agent_ledger l join gone g on g.agent_id = l.agent_id
  order by l.agent_id, l.skill, l.task_type
  for update of l
),
forgotten as (
  delete from agent_ledger l
  using known k
  where l.agent_id = k.agent_id and l.skill = k.skill and l.task_type = k.task_type
),
logged as (
  insert into events (kind, agent_id, node_id) select 'agent_removed', agent_id, $3 from gone
),
hinted as (
  select pg_notify('agentorch_fleet', '*')
)
select agent_id from gone, hinted;


-- name: roster
-- Every registered agent.
select
  a.agent_id, a.agent_type, a.pool, a.capabilities, a.slots, a.prefetch, a.status, a.node_id, a.completed, a.failed,
  a.consecutive_failures, a.failing_tasks, a.trips, a.excluded_reason,
  extract(epoch from a.excluded_until - now())::float8 as excluded_s,
  extract(epoch from a.status_until - now())::float8 as pause_s,
  case when a.excluded_until is not null then (
    select min(t.slot) from task_attempts t
    where t.agent_id = a.agent_id and t.status in ('sent', 'accepted') and not t.is_parked
      and t.sent_at >= a.excluded_until
  ) end as probe_slot
from agent_registry a;


-- name: roster_of
-- The same of these agents only.
select
  a.agent_id, a.agent_type, a.pool, a.capabilities, a.slots, a.prefetch, a.status, a.node_id, a.completed, a.failed,
  a.consecutive_failures, a.failing_tasks, a.trips, a.excluded_reason,
  extract(epoch from a.excluded_until - now())::float8 as excluded_s,
  extract(epoch from a.status_until - now())::float8 as pause_s,
  case when a.excluded_until is not null then (
    select min(t.slot) from task_attempts t
    where t.agent_id = a.agent_id and t.status in ('sent', 'accepted') and not t.is_parked
      and t.sent_at >= a.excluded_until
  ) end as probe_slot
from agent_registry a
where a.agent_id = any($1::text[]);


-- name: live_elsewhere
-- Live attempts of these agents ($2), which are not on node $1; null: all that are not for node $1.
-- Only those that matter to pool $3: its tasks, and what else its agents have.
select
  a.message_id, a.agent_id, a.slot, a.task_id, a.node_id, a.role, a.status, a.is_parked, t.pool, t.task_type,
  t.required_capabilities, (t.options ->> 'estimate_seconds')::float8 as estimate,
  extract(epoch from now() - coalesce(a.accepted_at, a.sent_at))::float8 as seconds_since_begun
from task_attempts a
join task_distributions t on t.task_id = a.task_id
left join agent_registry r on r.agent_id = a.agent_id
where a.status in ('sent', 'accepted') and (t.pool = $3 or r.pool = $3)
  and (case when $2::text[] is null then a.node_id <> $1 else a.agent_id = any($2::text[]) end)
order by a.sent_at;


-- name: unsent_here
-- Attempts that are for an agent of this node and were not taken by it for a while: perhaps nobody sent them.
select a.message_id
from task_attempts a
where a.status = 'sent' and a.node_id = $1 and a.sent_at < now() - $2::float8 * interval '1 second';


-- name: exec_agents
-- Agents that serve runs itself, and whether each is connected somewhere.
select
  agent_id, agent_type, capabilities, slots, exec, metadata::text as metadata, node_id is not null as is_connected
from agent_registry where exec is not null order by agent_id;


-- name: held_work
-- The live attempts of agents, or those of these ids, with all that is needed to send them (again).
select
  a.message_id, a.task_id, a.agent_id, a.attempt, a.status, a.slot, a.role, a.node_id, a.sent_at, a.accepted_at,
  a.is_parked, a.is_funded, cardinality(a.awaits) > 0 as is_waiting,
  coalesce(a.sent_at >= r.excluded_until, false) as is_probe,
  t.name, t.pool, t.task_type, t.priority, t.required_capabilities, t.task_data, t.timeout_seconds, t.deadline, t.retries,
  t.failures, t.losses, t.max_agents, t.has_dependents, t.options::text as options, t.status as task_status,
  case when a.role = 'judge' then (
    select json_build_object('answers', d.brief) from consensus_decisions d where d.task_id = t.task_id
  )::text end as brief,
  case when a.is_funded then (
    select json_strip_nulls(json_build_object(
      'costUsd', trim_scale(min(f.held_usd + case when f.scope = 'task' then 0
        else greatest(0, b.cost_usd - b.spent_usd - b.reserved_usd) end) filter (where f.granted_usd is not null)),
      'tokens', min(f.held_tokens + case when f.scope = 'task' then 0
        else greatest(0, b.tokens - b.spent_tokens - b.reserved_tokens) end)
        filter (where f.granted_tokens is not null)))
    from attempt_funding f join budgets b on b.scope = f.scope and b.key = f.key
    where f.message_id = a.message_id
  )::text end as budget,
  now() as now, extract(epoch from now() - a.sent_at)::float8 as seconds_since_sent,
  extract(epoch from now() - a.accepted_at)::float8 as seconds_since_accepted,
  case when cardinality(t.depends_on) > 0 then (
    select json_object_agg(x.name, d.result order by x.position)
    from unnest(t.depends_on, t.dependency_names) with ordinality as x (dependency_id, name, position)
    join task_distributions d on d.task_id = x.dependency_id
  ) end as inputs
from task_attempts a
join task_distributions t on t.task_id = a.task_id
left join agent_registry r on r.agent_id = a.agent_id
where (a.agent_id = any($1::text[]) or a.message_id = any($2::uuid[])) and a.status in ('sent', 'accepted')
-- Of what was assigned at the same moment the first had a slot, and what came after it was handed over ahead.
order by a.sent_at, t.urgency, t.remaining_path desc, t.seq;


-- name: adopt_attempts
-- Work that its agent holds on to across a reconnect now belongs to this node.
update task_attempts set node_id = $2
where message_id = any($1::uuid[]) and status in ('sent', 'accepted') and node_id <> $2;


-- name: sweep
-- Whether there is anything to pick up: for the chief ($3), who looks at all pools, and for the leader of
-- pool $4 among its ready tasks. Each part stops at the first row it finds.
select
  $3 and exists (
    select from agent_registry a
    where a.node_id <> $1
      and not exists (select from nodes n where n.node_id = a.node_id and n.expires_at > now())
  ) as has_stranded,
  $3 and exists (
    select from task_attempts a
    left join agent_registry r on r.agent_id = a.agent_id
    where a.status in ('sent', 'accepted')
      and (r.agent_id is null
           or (r.node_id is null
               and coalesce(r.disconnected_at, r.created_at) < now() - $2::float8 * interval '1 second'))
  ) as has_orphans,
  $3 and exists (
    select from task_distributions
    where deadline < now() and indexed_status in ('blocked', 'pending', 'running')
  ) as has_overdue,
  $3 and exists (
    select from task_distributions
    where status = 'pending' and wanted > 0 and options ? 'queue_timeout_seconds'
      and agentorch_queue_until(run_at, created_at, options) < now()
  ) as has_starved,
  $3 and exists (select from schedules where not is_paused and greatest(next_at, retry_at) <= now()) as has_due,
  (
    select array_agg(node_id) from nodes where $3 and expires_at between now() - interval '1 hour' and now()
  ) as dead_nodes,
  exists (
    select from task_distributions where pool = $4 and wanted > 0 and (not is_delayed or run_at <= now())
  ) as has_ready,
  $3 and exists (select from consensus_decisions where status = 'pending') as has_votes,
  exists (
    select from task_attempts
    where status = 'sent' and node_id = $1 and sent_at < now() - $5::float8 * interval '1 second'
  ) as has_unsent,
  case when $3 then (
    -- smaller ones are read as fast as an index
    select array_agg(quote_ident(relname)) from pg_class
    where relnamespace = current_schema()::regnamespace and relkind = 'r'
      and pg_relation_size(oid) > 2 * greatest(relpages, 8) * current_setting('block_size')::bigint
  ) end as outgrown;


-- name: orphaned_attempts
-- Live attempts whose agent has been gone for longer than the grace, or is not registered.
select a.message_id
from task_attempts a
left join agent_registry r on r.agent_id = a.agent_id
where a.status in ('sent', 'accepted')
  and (r.agent_id is null
       or (r.node_id is null and coalesce(r.disconnected_at, r.created_at) < now() - $1 * interval '1 second'))
limit $2;


-- name: overdue_tasks
-- Open tasks whose deadline has passed.
select task_id from task_distributions
where deadline < now() and indexed_status in ('blocked', 'pending', 'running')
limit $1;


-- name: starved_tasks
-- Ready tasks that nobody has started within their queue timeout, the longest overdue first.
select task_id, (options ->> 'queue_timeout_seconds')::float8 as queue_timeout_seconds
from task_distributions
where status = 'pending' and wanted > 0 and options ? 'queue_timeout_seconds'
  and agentorch_queue_until(run_at, created_at, options) < now()
order by agentorch_queue_until(run_at, created_at, options)
limit $1;


-- name: beat
-- One sign of life per node for all it carries: the node's row, those of the leases $9 that it holds (or
-- that nobody does), the heartbeats of its agents and what they finished. Answers which leases it holds
-- with their epochs, in how many seconds the first of the others ends, and which of the agents that were
-- heard here the tables think are nowhere. Leases are locked in the order of their names.
with alive as (
  insert into nodes (node_id, host_key, host, port, pid, pid_started, version, expires_at, pool)
  values ($1, $2, $3, $4, $5, $6, $7, now() + $8 * interval '1 second', $14)
  on conflict (node_id) do update set
    heartbeat_at = now(), expires_at = excluded.expires_at, port = excluded.port
),
led as (
  insert into leases as l (name, node_id, expires_at)
  select name, $1, now() + $8 * interval '1 second'
  from unnest($9::text[]) as i (name)
  where $13
  order by name
  on conflict (name) do update set
    epoch = case when l.node_id = excluded.node_id then l.epoch else l.epoch + 1 end,
    node_id = excluded.node_id,
    expires_at = excluded.expires_at
  where l.node_id = excluded.node_id or l.expires_at < now()
  returning l.name, l.epoch
),
heard as (
  update agent_registry a
  set last_heartbeat = now(), completed = a.completed + i.completed, failed = a.failed + i.failed
  from unnest($10::text[], $11::integer[], $12::integer[]) as i (agent_id, completed, failed)
  where a.agent_id = i.agent_id
)
select
  (select array_agg(name order by name) from led) as led,
  (select array_agg(epoch order by name) from led) as epochs,
  (select extract(epoch from min(expires_at) - now())::float8 from leases
   where name = any($9::text[]) and name not in (select name from led)) as lease_seconds,
  exists (select from nodes where node_id <> $1 and expires_at > now()) as has_peers,
  exists (select from nodes where pool <> $14 and expires_at > now()) as has_other_pools,
  (select array_agg(agent_id) from agent_registry where agent_id = any($10::text[]) and node_id is null) as stranded;


-- name: bury_dead_nodes
-- Nodes on this host whose process is gone ($1) do not keep their lease for its full time.
with dead as (
  update nodes set expires_at = now() where node_id = any($1::text[])
),
held as (
  select name from leases where node_id = any($1::text[]) order by name for update
)
update leases l set expires_at = now() - interval '1 second'
from held h where l.name = h.name and l.node_id = any($1::text[]);


-- name: nodes_here
-- Nodes that ran on this host and are not known to have ended.
select node_id, pid, pid_started from nodes where host_key = $1 and expires_at > now();


-- name: strand_agents
-- Agents of nodes that are dead: offline from now on, so that their grace runs. Node $1, which asks,
-- lives, whatever its row says: it may have been stopped, or without a database, for a while.
with gone as (
  update agent_registry a
  set status = case when a.status in ('paused', 'draining') then a.status else 'offline' end,
      node_id = null, session_id = null, disconnected_at = now(), updated_at = now()
  where a.node_id <> $1
    and not exists (select 1 from nodes n where n.node_id = a.node_id and n.expires_at > now())
  returning a.agent_id
),
logged as (
  insert into events (kind, agent_id, node_id) select 'agent_offline', agent_id, $1 from gone
)
select agent_id from gone;


-- name: reclaim_agents
-- Agents with a session on node $3 that was taken for dead: they are here, and were all the time.
with back as (
  update agent_registry a
  set status = case when a.status in ('paused', 'draining') then a.status else 'online' end,
      node_id = $3, session_id = i.session_id, disconnected_at = null, last_heartbeat = now(), updated_at = now()
  from unnest($1::text[], $2::uuid[]) as i (agent_id, session_id)
  where a.agent_id = i.agent_id and a.node_id is null
  returning a.agent_id, a.status
),
logged as (
  insert into events (kind, agent_id, node_id) select 'agent_online', agent_id, $3 from back
)
select agent_id, status from back;


-- name: leave
-- This node ends in good order: its leases and its row go, its agents are offline.
with node as (
  delete from nodes where node_id = $1
),
held as (
  select name from leases where node_id = $1 order by name for update
),
given_up as (
  delete from leases l using held h where l.name = h.name and l.node_id = $1
),
gone as (
  update agent_registry a
  set status = case when a.status in ('paused', 'draining') then a.status else 'offline' end,
      node_id = null, session_id = null, disconnected_at = now(), updated_at = now()
  where a.node_id = $1
  returning a.agent_id
),
told as (
  select pg_notify('agentorch_lead', $1)
)
select count(*) from gone, told;
