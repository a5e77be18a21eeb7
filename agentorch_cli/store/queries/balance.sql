-- Work that agents have not accepted, given to others; and backups of work that lasts too long.


-- name: movable_attempts
-- Attempts that their agents have not accepted, of these agents ($2) or with these ids ($1), as their tasks
-- would be read once they are ready again; in the order of service. Only of tasks of pool $4 that one agent does alone.
select
  a.message_id, a.agent_id, extract(epoch from now() - a.sent_at)::float8 as sent_s,
  t.task_id, t.seq, t.urgency, t.remaining_path, t.task_type, t.priority, t.required_capabilities, t.coverage,
  t.min_agents, t.max_agents, t.first_wave as wanted, t.attempts_made, t.tried_agents,
  '{}'::text[] as assigned_agents, t.timeout_seconds, t.retries, t.failures, t.losses, t.has_dependents,
  t.options::text as options, 'pending' as status, t.deadline, t.declined_by, t.pool
from task_attempts a
join task_distributions t on t.task_id = a.task_id
where a.status = 'sent' and (a.message_id = any($1::uuid[]) or a.agent_id = any($2::text[]))
  and not a.is_parked and a.role is null
  and t.status = 'running' and t.max_agents = 1 and not t.options ? 'consensus' and t.pool = $4
order by t.urgency, t.remaining_path desc, t.seq
limit $3;


-- name: take_back_attempts
-- Attempts that are still not accepted are taken from their agents, and their tasks are ready again as they
-- were: no failure, no loss. Answers which; whoever wants to give them to others does so after this.
-- The log says of the attempt why it was moved, and of the task that it is ready again.
with input as (
  select * from unnest($1::uuid[], $2::text[], $3::text[]) as i (message_id, task_id, data)
),
locked as (
  select task_id from task_distributions
  where task_id = any($2::text[]) and status = 'running' and max_agents = 1
  order by task_id
  for no key update
),
stopped as (
  update task_attempts a
  set status = 'cancelled', finished_at = now(), error = $4::text::jsonb
  from input i join locked l on l.task_id = i.task_id
  where a.message_id = i.message_id and a.status = 'sent' and not a.is_parked
  returning a.message_id, a.task_id, a.agent_id
),
requeued as (
  update task_distributions t
  set status = 'pending', wanted = t.first_wave, is_delayed = false, assigned_agents = '{}'
  from stopped s
  where t.task_id = s.task_id
),
logged as (
  insert into events (kind, task_id, agent_id, message_id, node_id, data)
  select l.kind, l.task_id, l.agent_id, l.message_id, $5, l.data::json
  from (
    select 'attempt_moved', s.task_id, s.agent_id, s.message_id, i.data, 1
    from stopped s join input i on i.message_id = s.message_id
    union all
    select 'task_requeued', s.task_id, null, s.message_id, $4::text, 2 from stopped s
  ) as l (kind, task_id, agent_id, message_id, data, step)
  order by l.task_id, l.step
)
select message_id, task_id from stopped;


-- name: cohorts
-- How long work of these skills and task types took, of all agents together, by bucket.
select l.skill, l.task_type, array_agg(l.number order by l.bucket) as latency
from (
  select a.skill, a.task_type, u.bucket, sum(u.number) as number
  from unnest($1::text[], $2::text[]) as i (skill, task_type)
  join agent_ledger a on a.skill = left(i.skill, 200) and a.task_type = i.task_type
  cross join unnest(a.latency) with ordinality as u (number, bucket)
  group by a.skill, a.task_type, u.bucket
) l
group by l.skill, l.task_type;


-- name: straggling_attempts
-- Of these attempts those that their agents work on, alone, and that have had no backup; as their tasks would
-- be read if they wanted one more agent.
select
  a.agent_id, extract(epoch from now() - a.accepted_at)::float8 as seconds,
  t.task_id, t.seq, t.urgency, t.remaining_path, t.task_type, t.priority, t.required_capabilities, t.coverage,
  t.min_agents, t.max_agents, 1 as wanted, t.attempts_made, t.tried_agents, t.assigned_agents,
  t.timeout_seconds, t.retries, t.failures, t.losses, t.has_dependents, t.options::text as options, t.status,
  t.deadline, t.declined_by, t.pool
from task_attempts a
join task_distributions t on t.task_id = a.task_id
where a.message_id = any($1::uuid[]) and a.status = 'accepted' and a.waits_since is null and not a.is_parked
  and a.role is null and t.status = 'running' and t.max_agents = 1 and t.wanted = 0
  and not t.options ?| array['consensus', 'backed_up']
order by t.urgency, t.remaining_path desc, t.seq;


-- name: back_up_tasks
-- These tasks may have two agents from now on, and want one; the first valid result wins.
with input as (
  select * from unnest($1::text[], $2::text[], $3::text[]) as i (task_id, agent_id, data)
),
locked as (
  select task_id from task_distributions where task_id = any($1::text[]) order by task_id for no key update
),
backed_up as (
  update task_distributions t
  set max_agents = 2, wanted = 1, options = t.options || '{"backed_up": true}'
  from input i
  where t.task_id = i.task_id and t.status = 'running' and t.max_agents = 1 and t.wanted = 0
    and (select count(*) from locked) > 0
  returning t.task_id
),
logged as (
  insert into events (kind, task_id, agent_id, node_id, data)
  select 'straggler_backed_up', b.task_id, i.agent_id, $4, i.data::json
  from backed_up b join input i on i.task_id = b.task_id
)
select task_id from backed_up;
