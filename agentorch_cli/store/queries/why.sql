-- Why a task waits: the tables as the scheduler sees them, with durations.


-- name: why_agents
-- The fleet as the scheduler sees it, with what each agent holds and since when.
select
  a.agent_id, a.agent_type, a.pool, a.capabilities, a.slots, a.status, a.node_id, a.completed, a.failed,
  case when a.node_id is null
    then extract(epoch from now() - coalesce(a.disconnected_at, a.created_at))::float8 end as away_s,
  a.status_since, a.status_until, a.status_reason, a.excluded_until, a.excluded_reason, now() as now,
  coalesce(l.slots, '{}') as used_slots, coalesce(l.tasks, '{}') as tasks, coalesce(l.since, '{}') as since
from agent_registry a
left join (
  select
    agent_id, array_agg(slot order by sent_at) as slots, array_agg(task_id order by sent_at) as tasks,
    array_agg(extract(epoch from now() - sent_at)::float8 order by sent_at) as since
  from task_attempts where status in ('sent', 'accepted') and not is_parked group by agent_id
) l on l.agent_id = a.agent_id
order by a.agent_id;


-- name: why_tasks
-- How tasks stand, and for how long.
select
  t.task_id, t.name, t.pool, t.task_type, t.status, t.wanted, t.is_delayed, t.priority, t.attempts_made, t.failures,
  t.restarts, t.depends_on, t.min_agents, t.tried_agents, t.error::text as error, t.parent_id,
  extract(epoch from t.run_at - now())::float8 as due_in_s,
  extract(epoch from now() - t.created_at)::float8 as age_s,
  extract(epoch from now() - t.completed_at)::float8 as ended_s,
  extract(epoch from t.deadline - now())::float8 as deadline_s
from task_distributions t
where t.task_id = any($1::text[]);


-- name: why_attempts
-- Live attempts of tasks; `behind` are the tasks that their agent has to end before it begins with this one,
-- where it was handed more than it has slots.
select
  message_id, task_id, agent_id, status, is_parked, is_lent, awaits, progress, note,
  case when status = 'sent' and not is_parked then coalesce((
    select array_agg(o.task_id order by o.sent_at, o.slot)
    from task_attempts o
    where o.agent_id = a.agent_id and o.status in ('sent', 'accepted') and not o.is_parked
      and (o.status = 'accepted' or (o.sent_at, o.slot) < (a.sent_at, a.slot))
    having count(*) >= (select r.slots from agent_registry r where r.agent_id = a.agent_id)
  ), '{}') else '{}' end as behind,
  extract(epoch from now() - sent_at)::float8 as sent_s, extract(epoch from now() - accepted_at)::float8 as accepted_s,
  extract(epoch from now() - waits_since)::float8 as waits_s,
  extract(epoch from now() - wants_slot_since)::float8 as wants_slot_s,
  -- since when its agent has been away, for how long somebody has served, and what is left of its time
  (select extract(epoch from now() - coalesce(r.disconnected_at, r.created_at))::float8
   from agent_registry r where r.agent_id = a.agent_id and r.node_id is null) as away_s,
  (select extract(epoch from now() - min(n.started_at))::float8 from nodes n where n.expires_at > now()) as served_s,
  (select extract(epoch from least(a.accepted_at + t.timeout_seconds * interval '1 second', t.deadline) - now())::float8
   from task_distributions t where t.task_id = a.task_id) as left_s
from task_attempts a
where task_id = any($1::text[]) and status in ('sent', 'accepted')
order by sent_at;


-- name: why_limits
-- Whether anybody serves, and does so for pool $1, whose lease is $2; and the leader's limit on running
-- work there with how much of it is used.
select
  (select count(*)::integer from nodes where expires_at > now()) as live_nodes,
  (select count(*)::integer from nodes where expires_at > now() and pool = $1) as live_here,
  (select n.most_running from leases l join nodes n on n.node_id = l.node_id
   where l.name = $2 and l.expires_at > now()) as most_running,
  (select count(distinct a.task_id)::integer
   from task_attempts a join task_distributions t on t.task_id = a.task_id
   where a.status in ('sent', 'accepted') and a.waits_since is null and not a.is_parked and t.pool = $1) as running,
  (select extract(epoch from now() - max(expires_at))::float8 from nodes) as no_node_s,
  (select extract(epoch from now() - max(expires_at))::float8 from nodes where pool = $1) as none_here_s;


-- name: busy_lately
-- Those of these agents that something happened to in the last seconds, as far as the newest events tell.
select distinct agent_id
from (select at, agent_id from events order by events.tx desc, event_id desc limit 50000) e
where agent_id = any($1::text[]) and at > now() - $2 * interval '1 second';


-- name: ready_for
-- Ready tasks that have waited for longer than $1 seconds, in the order of service of each pool.
select task_id, pool, extract(epoch from now() - greatest(run_at, created_at))::float8 as waited_s
from task_distributions
where wanted > 0 and not is_delayed and greatest(run_at, created_at) < now() - $1 * interval '1 second'
order by urgency, remaining_path desc, seq
limit $2;
