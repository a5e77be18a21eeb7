-- The careful path: tasks with several agents, votes, late results, cancellations, retries.
-- These run inside a transaction that has locked the tasks first, in the order of their ids.


-- name: lock_tasks
-- Lock tasks and read what `core.settle` needs to know of them.
select
  task_id, task_type, status, generation, priority, required_capabilities, coverage, min_agents, max_agents,
  first_wave, wanted, timeout_seconds, retries, failures, losses, attempts_made, tried_agents, assigned_agents,
  has_dependents, attempts_before, options::text as options, deadline, pool,
  status = 'pending' and wanted > 0 and options ? 'queue_timeout_seconds'
    and agentorch_queue_until(run_at, created_at, options) < now() as is_starved
from task_distributions
where task_id = any($1::text[])
order by task_id
for no key update;


-- name: tasks_of_messages
-- Which task an attempt belongs to, and how it stands.
select message_id, task_id, agent_id, attempt, status
from task_attempts
where message_id = any($1::uuid[]);


-- name: team_members
-- The roles in teams that somebody works on or has done, and who is at work.
select
  a.task_id, array_agg(a.role) as roles,
  coalesce(array_agg(a.agent_id) filter (where a.status <> 'completed'), '{}') as busy
from task_attempts a
join task_distributions t on t.task_id = a.task_id
where a.task_id = any($1::text[]) and a.attempt > t.attempts_before
  and a.status in ('sent', 'accepted', 'completed')
group by a.task_id;


-- name: attempts_of_tasks
-- All attempts of the present generation of tasks, oldest first.
select
  a.message_id, a.task_id, a.agent_id, a.attempt, a.status, a.slot, a.node_id, a.role, a.result,
  a.error::text as error, a.confidence, a.usage::text as usage, a.sent_at, a.accepted_at, a.finished_at,
  extract(epoch from a.finished_at - a.sent_at)::float8 as seconds
from task_attempts a
join task_distributions t on t.task_id = a.task_id
where a.task_id = any($1::text[]) and a.attempt > t.attempts_before
order by a.task_id, a.attempt;


-- name: finish_attempts
-- End attempts with what they brought. A late result may end an attempt that was given up, if $7:
-- its task is still open. When it ended stays as it was: its slot was free from then on.
with input as (
  select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::text[])
    as i (message_id, status, result, error, confidence, usage)
)
update task_attempts a
set
  status = i.status,
  accepted_at = coalesce(a.accepted_at, a.sent_at),
  finished_at = coalesce(a.finished_at, greatest(now(), a.sent_at, a.accepted_at)),
  result = i.result::json,
  error = i.error::jsonb,
  confidence = i.confidence,
  usage = coalesce(i.usage::jsonb, a.usage)
from input i
where a.message_id = i.message_id
  and (a.status in ('sent', 'accepted')
       or ($7 and a.status in ('lost', 'timed_out') and i.status = 'completed'))
returning a.message_id;


-- name: note_declined
-- Agents $2 gave a task back because they do not want to do it: it does not come to them again.
update task_distributions
set declined_by = array(select distinct unnest(coalesce(declined_by, '{}') || $2::text[]) order by 1)
where task_id = $1;


-- name: result_schemas
-- What results have to fit, of attempts that are not live here any more; as JSON text.
select a.message_id, t.options ->> 'result_schema' as result_schema,
  t.options ? 'consensus' and a.role is distinct from 'judge' as is_ballot
from task_attempts a
join task_distributions t on t.task_id = a.task_id
where a.message_id = any($1::uuid[]) and t.options ? 'result_schema';


-- name: give_up_attempts
-- End live attempts without a result: called off, lost, or out of time.
update task_attempts a
set status = $2, finished_at = greatest(now(), a.sent_at, a.accepted_at), error = $3::jsonb
where a.message_id = any($1::uuid[]) and a.status in ('sent', 'accepted')
returning a.message_id, a.task_id, a.agent_id, a.node_id;


-- name: settle_tasks
-- Move tasks that this transaction has locked.
with input as (
  select *
  from unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::float8[], $7::integer[], $8::integer[],
    $9::text[], $10::text[]
  ) as i (
    task_id, status, result, error, wanted, delay_seconds, failures, losses, tried_agents, assigned_agents
  )
)
update task_distributions t
set
  status = i.status,
  completed_at = case when i.status in ('completed', 'failed', 'cancelled', 'skipped') then greatest(now(), t.started_at) end,
  result = i.result::json,
  error = i.error::jsonb,
  wanted = i.wanted,
  run_at = case when i.wanted > 0 then now() + i.delay_seconds * interval '1 second' else t.run_at end,
  is_delayed = (i.wanted > 0 and i.delay_seconds > 0),
  failures = i.failures,
  losses = i.losses,
  tried_agents = i.tried_agents::text[],
  assigned_agents = i.assigned_agents::text[]
from input i
where t.task_id = i.task_id and t.status in ('pending', 'running')
returning t.task_id, t.status, t.has_dependents;


-- name: cancel_tasks
-- Call off tasks that this transaction has locked and that are open; their live attempts with them.
with called_off as (
  update task_distributions
  set status = 'cancelled', completed_at = greatest(now(), started_at), wanted = 0, is_delayed = false,
      error = jsonb_build_object('code', 'cancelled', 'message', $2::text)
  where task_id = any($1::text[]) and status in ('blocked', 'pending', 'running')
  returning task_id, has_dependents, error
),
stopped as (
  update task_attempts a
  set status = 'cancelled', finished_at = greatest(now(), a.sent_at, a.accepted_at)
  from called_off c
  where a.task_id = c.task_id and a.status in ('sent', 'accepted')
  returning a.message_id, a.task_id, a.agent_id
),
edges as (
  delete from task_dependencies e using called_off c where e.task_id = c.task_id
),
votes as (
  update consensus_decisions d
  set status = 'failed', decided_by = 'cancelled', decided_at = now()
  from called_off c
  where d.task_id = c.task_id and d.status = 'pending'
),
logged as (
  insert into events (kind, task_id, node_id, data)
  select 'task_cancelled', task_id, $3, error::json from called_off
),
ended as (
  -- whoever asked may die before the dependents are told: then the leader tells them
  select pg_notify('agentorch_ended', case when octet_length(ids) < 7900 then ids else '*' end)
  from (select string_agg(task_id, E'\n') as ids from called_off where has_dependents) as n
  where ids is not null
)
select c.task_id, c.has_dependents, array(select s.message_id from stopped s where s.task_id = c.task_id) as messages
from called_off c, (select count(*) from ended) as told;


-- name: lineage_down
-- Tasks and all their sub-tasks, to any depth.
with recursive tree (task_id) as (
  select task_id from task_distributions where task_id = any($1::text[])
  union
  select t.task_id from tree join task_distributions t on t.parent_id = tree.task_id
)
select task_id from tree order by task_id;


-- name: retry_tasks
-- A person opens a new generation of tasks that ended without a result.
with opened as (
  update task_distributions t
  set
    generation = t.generation + 1,
    attempts_before = t.attempts_made,
    status = case when i.waiting_on > 0 then 'blocked' else 'pending' end,
    waiting_on = i.waiting_on,
    wanted = case when i.waiting_on > 0 then 0 else t.first_wave end,
    completed_at = null, error = null, failures = 0, losses = 0, tried_agents = '{}', declined_by = null,
    assigned_agents = '{}',
    run_at = now(), is_delayed = false, deadline = null,
    urgency = agentorch_urgency(now(), t.priority, $3)
  from unnest($1::text[], $2::integer[]) as i (task_id, waiting_on)
  where t.task_id = i.task_id and t.status in ('failed', 'cancelled', 'skipped')
  returning t.task_id, t.status
),
logged as (
  insert into events (kind, task_id, node_id) select 'task_retried', task_id, $4 from opened
),
forgotten as (
  delete from consensus_decisions d using opened o where d.task_id = o.task_id
)
select task_id, status from opened;


-- name: fallen_with
-- Tasks that failed or were left out because of tasks $1, however far down.
with recursive fallen (task_id) as (
  select unnest($1::text[])
  union
  select t.task_id
  from fallen f
  join task_distributions t on t.error ->> 'depends_on' = f.task_id and t.error ->> 'code' = 'dependency_failed'
  where t.status in ('failed', 'skipped') and t.submission_id = any($2::uuid[])
)
select task_id from fallen;


-- name: add_edges
-- Dependencies that are waited for again. Their rows change, as with each edge to a stored task: whoever
-- settles one of them at this moment sees by that that somebody came to wait (`settle_and_unlock`).
with marked as (
  update task_distributions set has_dependents = true where task_id = any($1::text[])
)
insert into task_dependencies (depends_on, task_id)
select * from unnest($1::text[], $2::text[])
on conflict do nothing;


-- name: mark_depended_on
-- Lock the tasks that new ones will wait for, and say how they stand. A task that is being settled
-- at this moment is waited for; it then shows its final state here.
update task_distributions t
set has_dependents = true
from (
  select task_id from task_distributions where task_id = any($1::text[]) order by task_id for no key update
) as l
where t.task_id = l.task_id
returning t.task_id, t.status;


-- name: known_keys
-- The tasks that already have these idempotency keys.
select idempotency_key, task_id, name, status, submission_id
from task_distributions where idempotency_key = any($1::text[]);


-- name: compare_with_known
-- The same tasks for keys $1, and in what the new ones differ: type ($2),
-- required capabilities ($3), priority ($4), data ($5).
select
  t.idempotency_key, t.task_id, t.name, t.status, t.submission_id,
  array_remove(array[
    case when t.task_type <> n.task_type then 'type' end,
    case when t.required_capabilities <> n.required_capabilities::text[] then 'required_capabilities' end,
    case when t.priority <> n.priority then 'priority' end,
    case when t.task_data::jsonb is distinct from n.task_data::jsonb then 'data' end
  ], null) as differs
from unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[])
  as n (idempotency_key, task_type, required_capabilities, priority, task_data)
join task_distributions t on t.idempotency_key = n.idempotency_key
where t.idempotency_key = any($1::text[]);


-- name: log_events
-- One row per transition.
insert into events (kind, task_id, agent_id, message_id, node_id, data)
select kind, task_id, agent_id, message_id, $6, data::json
from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[])
  as i (kind, task_id, agent_id, message_id, data);


-- name: fail_blocked
-- A blocked task whose deadline passed fails; nobody waits on its behalf any more.
with failed as (
  update task_distributions
  set status = 'failed', completed_at = now(), error = $2::jsonb
  where task_id = $1 and status = 'blocked'
  returning task_id
)
delete from task_dependencies e using failed f where e.task_id = f.task_id;


-- name: end_sick
-- A task that cannot be handled fails, whatever its row says; its live attempts are called off.
with failed as (
  update task_distributions
  set status = 'failed', completed_at = greatest(now(), started_at), wanted = 0, is_delayed = false, error = $2::jsonb
  where task_id = $1 and status in ('blocked', 'pending', 'running')
  returning task_id, has_dependents
),
stopped as (
  update task_attempts a
  set status = 'cancelled', finished_at = greatest(now(), a.sent_at, a.accepted_at)
  from failed f
  where a.task_id = f.task_id and a.status in ('sent', 'accepted')
  returning a.agent_id, a.message_id
),
edges as (
  delete from task_dependencies e using failed f where e.task_id = f.task_id
),
votes as (
  update consensus_decisions d
  set status = 'failed', decided_by = $2::jsonb ->> 'code', decided_at = now()
  from failed f
  where d.task_id = f.task_id and d.status = 'pending'
),
logged as (
  insert into events (kind, task_id, node_id, data) select 'task_failed', task_id, $3, $2::json from failed
),
hinted as (
  select pg_notify('agentorch_done', task_id) from failed
),
ended as (
  -- whoever asked may die before the dependents are told: then the leader tells them
  select pg_notify('agentorch_ended', case when octet_length(ids) < 7900 then ids else '*' end)
  from (select string_agg(task_id, E'\n') as ids from failed where has_dependents) as n
  where ids is not null
)
select
  f.has_dependents, array(select agent_id from stopped order by message_id) as agents,
  array(select message_id::text from stopped order by message_id) as messages,
  (select count(*) from hinted) + (select count(*) from ended) as told
from failed f;


-- name: tell_done
-- Those who wait for tasks may look.
select pg_notify('agentorch_done', $1);


-- name: dependencies_of
-- Everything that tasks $1 depend on.
select distinct unnest(depends_on) as task_id from task_distributions where task_id = any($1::text[]);


-- name: open_dependencies
-- For tasks that are about to be opened again: which of their dependencies they will wait for.
-- Those are the ones that have not ended or do not exist, and those that are opened with them.
select t.task_id, array_agg(x.task_id) as waits_for
from task_distributions t
cross join lateral unnest(t.depends_on) as x (task_id)
left join task_distributions d on d.task_id = x.task_id
where t.task_id = any($1::text[])
  and (d.task_id is null or d.status in ('blocked', 'pending', 'running') or d.task_id = any($1::text[]))
group by t.task_id;


-- name: dead_dependencies
-- Tasks among $1 that cannot be opened: a dependency ended badly and is not opened with them.
with recursive dead (task_id) as (
  select t.task_id
  from task_distributions t
  join task_distributions d on d.task_id = any(t.depends_on)
  where t.task_id = any($1::text[]) and t.on_dependency_failure <> 'run'
    and d.status in ('failed', 'cancelled') and not d.task_id = any($1::text[])
  union
  select t.task_id
  from dead
  join task_distributions t on dead.task_id = any(t.depends_on)
  where t.task_id = any($1::text[])
)
select task_id from dead;
