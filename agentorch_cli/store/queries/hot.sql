-- The statements of the hot path: submit, read what is ready, assign, record, settle, unlock.
-- Each handles a batch in one round trip and commits by itself.
--
-- Where rows are named by their keys, `wanted + 0 > 0` and `status || ''` keep the planner from the partial
-- indexes of what is ready or live. Statistics that were taken while nothing was ready say that those hold one
-- row; a plan made with them walks all of the backlog for each task of a batch.
--
-- A plan is kept until the next statistics, a minute or more, however much has come since it was made. One that was
-- made while a table held a few rows reads all of it to join it with a batch. So a table is never joined with
-- what may be thought to be many rows: it is told its keys (`= any(...)`, where nothing else of the batch is wanted, for
-- as a further condition of a join it would be gone through for each row), or is looked up for each row of a set that
-- is held for tiny: `x || '' = x`, which is always true, counts as one in two hundred. Two sets that are held for
-- tiny are not joined with each other: that is done by comparing each with each.
--
-- The arrays of a batch are taken apart side by side in the select list: a function in `from` would write down what
-- it answers for each of them, row by row, and read it again. Shorter ones are filled up with nulls.
--
-- `indexed_status` is written here as the triggers `task_is_indexed` and `task_indexed_status` would: null stays
-- null for a plain task, so that its end changes nothing that an index knows, and the row is written in place.


-- part: ready_row
-- What the scheduler wants to know of a ready task.
  task_id, seq, urgency, remaining_path, task_type, priority, required_capabilities, coverage, min_agents,
  max_agents, wanted, attempts_made, tried_agents, assigned_agents, timeout_seconds, retries, failures, losses,
  has_dependents, options::text as options, status, deadline, declined_by, pool


-- part: input_of_endings
input as (
  select
    unnest($1::text::uuid[]) as message_id,
    unnest($2::text::text[]) as task_id,
    unnest($3::text::text[]) as agent_id,
    unnest($4::text::text[]) as attempt_status,
    unnest($5::text::text[]) as verdict,
    unnest($6::text::text[]) as result,
    unnest($7::text::text[]) as error,
    unnest($8::text::float8[]) as confidence,
    unnest($9::text::text[]) as usage,
    unnest($10::text::float8[]) as delay_seconds,
    generate_subscripts($5::text::text[], 1) as position
),


-- part: endings
-- What was given a backup meanwhile is not a task with one agent any more: `locked` says how many it takes.
-- Whoever leads is told which slots came free ($13: payloads) if all of them did.
-- Each step hands on what the next one needs, so that they need not be matched with the input again.
finished as (
  update task_attempts a
  set
    status = i.attempt_status,
    accepted_at = coalesce(a.accepted_at, a.sent_at),
    finished_at = greatest(now(), a.sent_at, a.accepted_at),
    result = i.result::json,
    error = i.error::jsonb,
    confidence = i.confidence,
    usage = i.usage::jsonb
  from input i
  where a.message_id = i.message_id and a.status || '' in ('sent', 'accepted')
    and (select count(*) from locked) > 0 and i.task_id in (select l.task_id from locked l where l.max_agents = 1)
  returning
    i.position, i.task_id, i.agent_id, a.message_id, i.attempt_status, i.verdict, a.result, a.error,
    i.error as error_text, i.delay_seconds
),
settled as (
  update task_distributions t
  set
    status = f.verdict,
    indexed_status = case
      when f.verdict <> 'completed' and (t.indexed_status is not null or f.verdict <> 'pending')
      then f.verdict end,
    completed_at = case when f.verdict = 'pending' then null else now() end,
    result = case when f.verdict = 'completed' then f.result end,
    error = case when f.verdict = 'completed' then null else f.error end,
    failures = t.failures + case when f.attempt_status in ('failed', 'timed_out') then 1 else 0 end,
    losses = t.losses + case when f.attempt_status = 'lost' then 1 else 0 end,
    wanted = case when f.verdict = 'pending' then t.first_wave else 0 end,
    run_at = case when f.verdict = 'pending' then now() + f.delay_seconds * interval '1 second' else t.run_at end,
    is_delayed = (f.verdict = 'pending' and f.delay_seconds > 0),
    tried_agents = case
      when f.verdict = 'pending' and not f.agent_id = any(t.tried_agents) then t.tried_agents || f.agent_id
      else t.tried_agents end,
    assigned_agents = case when f.verdict = 'pending' then '{}' else t.assigned_agents end
  from finished f
  where t.task_id = f.task_id and t.status = 'running'
  returning
    f.position, t.task_id, t.status, t.has_dependents, f.agent_id, f.message_id, f.error_text
),
logged as (
  insert into events (kind, task_id, agent_id, message_id, node_id, data)
  select
    case status when 'pending' then 'task_requeued' else 'task_' || status end,
    task_id, agent_id, message_id, $11, case when status <> 'completed' then error_text::json end
  from settled
),
hinted as (
  select pg_notify('agentorch_done', $12) where $12 <> ''
),
freed as (
  select string_agg(pg_notify('agentorch_freed', f)::text, '')
  from unnest($13::text::text[]) as f
  where (select count(*) from settled) = (select count(*) from input)
)


-- part: waiting_to_fail
-- Only those of `e` that fail with what they wait for.
cross join lateral (
  select from task_distributions t
  where t.task_id = e.task_id and t.status = 'blocked' and t.on_dependency_failure = 'fail' offset 0
) t


-- part: unlocked
-- Whom enough was taken off `waiting_on` (in `counted`), as `ready_row` has it.
unlocked as (
  update task_distributions t
  set
    waiting_on = t.waiting_on - c.number,
    status = case when t.waiting_on > c.number then 'blocked' else 'pending' end,
    indexed_status = case when t.waiting_on > c.number then 'blocked' else 'pending' end,
    wanted = case when t.waiting_on > c.number then 0 else t.first_wave end,
    run_at = greatest(t.run_at, now()),
    is_delayed = t.waiting_on <= c.number and t.run_at > now(),
    urgency = agentorch_urgency(greatest(t.run_at, now()), t.priority, c.aging_seconds)
  from counted c
  where t.task_id = c.task_id and t.status = 'blocked'
  returning
    t.task_id, t.seq, t.urgency, t.remaining_path, t.task_type, t.priority, t.required_capabilities, t.coverage,
    t.min_agents, t.max_agents, t.wanted, t.attempts_made, t.tried_agents, t.assigned_agents, t.timeout_seconds,
    t.retries, t.failures, t.losses, t.has_dependents, t.options::text as options, t.status, t.deadline,
    t.declined_by, t.pool, t.is_delayed
)


-- part: new_tasks
-- The rows of `input`, whose edges are added elsewhere, one event each, and one hint that carries the ids that are
-- ready (or * where they do not fit). $1 is the submission, $2 the node, and $3 counts from readiness: seconds an age
-- step lasts. The hint ($4) of a single task may hold its row ($5); its place in the order of service is added here.
arrived as (
  -- earlier tasks wait for these; the table is empty but for `--allow-forward`
  delete from forward_references f using input i where f.depends_on = i.task_id returning f.depends_on
),
inserted as (
  insert into task_distributions (
    task_id, name, task_type, status, priority, required_capabilities, coverage, min_agents, max_agents,
    first_wave, wanted, waiting_on, depends_on, dependency_names, has_dependents, on_dependency_failure, urgency, remaining_path,
    run_at, is_delayed, deadline, timeout_seconds, retries, options, task_data, error, submission_id, parent_id,
    idempotency_key, completed_at, pool, indexed_status)
  select
    task_id, name, task_type, status, priority, required_capabilities::text[], coverage, min_agents, max_agents,
    first_wave, wanted, waiting_on, depends_on::text[], dependency_names::text[],
    has_dependents or task_id in (select a.depends_on from arrived a), on_dependency_failure,
    agentorch_urgency(greatest(run_at, now()), priority, $3), remaining_path,
    coalesce(run_at, now()), coalesce(run_at > now() and status = 'pending', false),
    coalesce(deadline, now() + deadline_seconds * interval '1 second'), timeout_seconds,
    retries, options::jsonb, task_data::json, error::jsonb, $1, parent_id, idempotency_key,
    case when status in ('failed', 'skipped') then now() end, pool,
    case
      when status <> 'pending' or depends_on <> '{}' or deadline is not null or deadline_seconds is not null
      then status end
  from input
  order by position
  returning task_id, status, error, urgency, seq
),
logged as (
  insert into events (kind, task_id, node_id)
  select 'task_submitted', task_id, $2 from input order by position
),
hinted as (
  select pg_notify('agentorch_tasks', $4 || case when $5 then (select urgency || ' ' || seq from inserted) else '' end)
  where $4 <> ''
),
closed as (
  select pg_notify('agentorch_deadlock', '*') where exists (select 1 from arrived)
)


-- name: insert_tasks
-- Store a submission: its tasks and their edges.
with input as (
  select
    unnest($6::text::text[]) as task_id,
    unnest($7::text::text[]) as name,
    unnest($8::text::text[]) as task_type,
    unnest($9::text::text[]) as status,
    unnest($10::text::smallint[]) as priority,
    unnest($11::text::text[]) as required_capabilities,
    unnest($12::text::text[]) as coverage,
    unnest($13::text::smallint[]) as min_agents,
    unnest($14::text::smallint[]) as max_agents,
    unnest($15::text::smallint[]) as wanted,
    unnest($16::text::integer[]) as waiting_on,
    unnest($17::text::text[]) as depends_on,
    unnest($18::text::text[]) as dependency_names,
    unnest($19::text::boolean[]) as has_dependents,
    unnest($20::text::text[]) as on_dependency_failure,
    unnest($21::text::real[]) as remaining_path,
    unnest($22::text::timestamptz[]) as run_at,
    unnest($23::text::timestamptz[]) as deadline,
    unnest($24::text::float8[]) as timeout_seconds,
    unnest($25::text::integer[]) as retries,
    unnest($26::text::text[]) as options,
    unnest($27::text::text[]) as task_data,
    unnest($28::text::text[]) as error,
    unnest($29::text::text[]) as idempotency_key,
    unnest($30::text::text[]) as parent_id,
    unnest($31::text::float8[]) as deadline_seconds,
    unnest($32::text::smallint[]) as first_wave,
    unnest($33::text::text[]) as pool,
    generate_subscripts($10::text::smallint[], 1) as position
),
-- use new_tasks
,
edges as (
  insert into task_dependencies (depends_on, task_id)
  select unnest($34::text::text[]), unnest($35::text::text[])
),
ended as (
  insert into events (kind, task_id, node_id, data)
  select 'task_' || status, task_id, $2, error::json from inserted where status in ('failed', 'skipped')
)
select count(*) from inserted, (select count(*) from hinted) as h, (select count(*) from closed) as c;


-- name: insert_task
-- The same for a task by itself that waits for nobody and is ready at once: what most programs submit most of the
-- time. To take apart the arrays of one task was an eighth of its insert, commit included.
with input as (
  select
    $6::text as task_id,
    $7::text as name,
    $8::text as task_type,
    'pending'::text as status,
    $9::smallint as priority,
    $10::text as required_capabilities,
    $11::text as coverage,
    $12::smallint as min_agents,
    $13::smallint as max_agents,
    $14::smallint as wanted,
    0 as waiting_on,
    '{}'::text as depends_on,
    '{}'::text as dependency_names,
    false as has_dependents,
    $15::text as on_dependency_failure,
    $16::real as remaining_path,
    null::timestamptz as run_at,
    null::timestamptz as deadline,
    $17::float8 as timeout_seconds,
    $18::integer as retries,
    $19::text as options,
    $20::text as task_data,
    null::text as error,
    $21::text as idempotency_key,
    $22::text as parent_id,
    null::float8 as deadline_seconds,
    $14::smallint as first_wave,
    $23::text as pool,
    1 as position
),
-- use new_tasks
select count(*) from inserted, (select count(*) from hinted) as h, (select count(*) from closed) as c;


-- name: ready_tasks
-- The next $1 tasks of pool $2 that want agents, in the order of service, behind the place
-- (urgency, remaining_path, seq) that $3, $4, $5 name.
select
  -- use ready_row
from task_distributions
where pool = $2 and wanted > 0 and not is_delayed
  and urgency >= $3 and (urgency > $3 or remaining_path < $4::real or (remaining_path = $4::real and seq > $5))
order by urgency, remaining_path desc, seq
limit $1;


-- name: ready_tasks_for
-- The same, of those that an agent with capabilities $1 could do, or a part of in a team; not those with
-- these concurrency keys ($3), of these types ($4), or with any of these capabilities ($5), which have to wait anyway;
-- of pool $6.
select
  -- use ready_row
from task_distributions
where pool = $6 and wanted > 0 and not is_delayed
  and (required_capabilities <@ $1::text[] or (coverage = 'team' and required_capabilities && $1::text[]))
  and ($3::text[] = '{}' or not coalesce(options ->> 'concurrency_key' = any($3::text[]), false))
  and not task_type = any($4::text[])
  and not required_capabilities && $5::text[]
order by urgency, remaining_path desc, seq
limit $2;


-- name: ready_tasks_by_id
-- The same columns for tasks of pool $2 that a hint named.
select
  -- use ready_row
from task_distributions
where task_id = any($1::text[]) and pool = $2 and wanted + 0 > 0 and not is_delayed;


-- name: release_delayed
-- Make tasks of pool $1 ready whose time has come; answers how many, and when the next one is due.
with due as (
  update task_distributions
  set is_delayed = false
  where is_delayed and run_at <= now() and pool = $1
  returning task_id
)
select
  (select count(*) from due) as released,
  (select extract(epoch from min(run_at) - now())::float8
   from task_distributions where is_delayed and run_at > now() and pool = $1) as next_seconds;


-- name: assign_batch
-- Claim tasks and send them to agents, all or nothing per task. A task is claimed only as it was
-- seen (the same number of attempts) and only while each chosen agent is online with that slot, on
-- the node that it was seen on. Work that is handed over ahead of a slot is numbered beyond them.
-- Counting `locked` makes it happen first, here and below: tasks are locked in the order of their ids.
-- The unique indexes on task_attempts refuse whatever a second scheduler did meanwhile.
-- The first seat of a task that is given several names the agents of all of them ($10).
with input as (
  select
    unnest($1::text::text[]) as task_id,
    unnest($2::text::integer[]) as seen_attempts,
    unnest($3::text::uuid[]) as message_id,
    unnest($4::text::text[]) as agent_id,
    unnest($5::text::integer[]) as slot,
    unnest($6::text::text[]) as role,
    unnest($7::text::integer[]) as attempt,
    unnest($8::text::text[]) as node_id,
    unnest($9::text::boolean[]) as is_ahead,
    unnest($10::text::text[]) as agents
),
online as materialized (
  select agent_id, node_id, slots, prefetch
  from agent_registry
  where agent_id = any($4::text::text[]) and status = 'online'
),
impossible as (
  select i.task_id
  from input i
  left join online a
    on a.agent_id = i.agent_id and a.node_id = i.node_id
      and i.slot < a.slots + case when i.is_ahead then a.prefetch else 0 end
  where a.agent_id is null
),
locked as (
  select task_id from task_distributions where task_id = any($1::text::text[]) order by task_id for no key update
),
wish as (
  select
    i.task_id, i.seen_attempts, coalesce(cardinality(i.agents::text[]), 1) as number,
    coalesce(i.agents::text[], array[i.agent_id]) as agents
  from input i
  where i.attempt = i.seen_attempts + 1 and i.task_id not in (select x.task_id from impossible x)
),
claimed as (
  update task_distributions t
  set
    status = 'running',
    indexed_status = case when t.indexed_status is not null then 'running' end,
    -- votes may be given fewer agents than they want: the rest follow as they come free; who is missing
    -- in a team comes at once, and may be more than it wants at least
    wanted = greatest(0, t.wanted - w.number),
    attempts_made = t.attempts_made + w.number,
    assigned_agents = t.assigned_agents || w.agents,
    started_at = coalesce(t.started_at, now())
  from wish w
  where t.task_id = w.task_id and t.wanted + 0 > 0 and t.attempts_made = w.seen_attempts
    and (w.number <= t.wanted or t.status = 'pending' or t.coverage = 'team')
    and (select count(*) from locked) > 0
  returning
    t.task_id, t.task_data, t.deadline, t.name, date_part('epoch', now() - t.run_at) as waited,
    case when cardinality(t.depends_on) > 0 then (
      select json_object_agg(x.name, d.result order by x.position)
      from unnest(t.depends_on, t.dependency_names) with ordinality as x (dependency_id, name, position)
      join task_distributions d on d.task_id = x.dependency_id and d.task_id = any(t.depends_on)
    ) end as inputs
),
sent as (
  insert into task_attempts (message_id, task_id, agent_id, attempt, status, slot, role, node_id)
  select i.message_id, i.task_id, i.agent_id, i.attempt, 'sent', i.slot, i.role, i.node_id
  from input i join claimed c on c.task_id = i.task_id
  returning task_id, agent_id, message_id, node_id
),
logged as (
  insert into events (kind, task_id, agent_id, message_id, node_id)
  select 'task_assigned', task_id, agent_id, message_id, node_id from sent
)
select task_id, task_data, deadline, inputs, now() as now, name, waited from claimed;


-- name: settle_batch
-- End attempts of tasks with one agent, and move their tasks, in one go. An attempt that is not
-- live any more, or a task that is not running, changes nothing: the caller looks again. The tasks
-- are locked before their attempts are touched. Of what nobody brought an array may be empty. Answers
-- those that it moved, by position in the arrays.
with
-- use input_of_endings
locked as (
  select task_id, max_agents from task_distributions
  where task_id = any($2::text::text[]) and max_agents = 1
  order by task_id
  for no key update
),
-- use endings
select position::integer as position, status, has_dependents
from settled
where (select count(*) from hinted) >= 0 and (select count(*) from freed) >= 0;


-- name: settle_and_unlock
-- The same where tasks may have dependents: of those that completed, `unlock_dependents` in the same commit.
-- All are locked in one order, those who wait among those who end. Who came to wait while this waited for the
-- lock is not seen, but has changed the row that it waits for: then there may be dependents left, and the
-- answer says so of all. $14 counts from readiness: seconds an age step lasts.
-- Answers as `settle_batch`, and below that, without a position, what is ready as `ready_tasks` does.
with
-- use input_of_endings
seen as materialized (
  select string_agg(t.xmin::text, ' ' order by t.task_id) as versions
  from task_distributions t
  where t.task_id = any($2::text::text[]) and t.status = 'running'
),
locked as (
  select t.task_id, t.max_agents, t.status, t.xmin as version
  from task_distributions t
  where t.task_id = any(array(
    select unnest($2::text::text[])
    union
    select e.task_id from task_dependencies e where e.depends_on = any($2::text::text[])))
  order by t.task_id
  for no key update of t
),
-- use endings
,
gone as (
  delete from task_dependencies e
  where e.depends_on = any(array(select s.task_id from settled s where s.status = 'completed'))
  returning e.task_id
),
changed as (
  select seen.versions <> string_agg(l.version::text, ' ' order by l.task_id) as is_so
  from locked l, seen
  where l.status = 'running'
  group by seen.versions
),
counted as (
  select g.task_id, count(*)::integer as number, $14::float8 as aging_seconds
  from gone g
  where g.task_id || '' = g.task_id
  group by g.task_id
),
-- use unlocked
select
  s.position::integer as position,
  null::text as task_id, null::bigint as seq, null::bigint as urgency, null::real as remaining_path,
  null::text as task_type, null::smallint as priority, null::text[] as required_capabilities,
  null::text as coverage, null::smallint as min_agents, null::smallint as max_agents, null::smallint as wanted,
  null::integer as attempts_made, null::text[] as tried_agents, null::text[] as assigned_agents,
  null::float8 as timeout_seconds, null::integer as retries, null::integer as failures, null::integer as losses,
  s.has_dependents and (s.status <> 'completed' or coalesce((select is_so from changed), true)) as has_dependents,
  null::text as options, s.status, null::timestamptz as deadline, null::text[] as declined_by,
  null::text as pool, null::boolean as is_delayed
from settled s
where (select count(*) from hinted) >= 0 and (select count(*) from freed) >= 0
union all
select
  null,
  -- use ready_row
  , is_delayed
from unlocked
where status = 'pending';


-- name: unlock_dependents
-- Tasks $1 ended well: take their edges away, count down those who wait, and make ready who waits
-- no more: those are answered as `ready_tasks` does. Deleting the edge is what makes it happen once; those who
-- wait are locked before.
with locked as (
  select t.task_id
  from task_distributions t
  where t.status = 'blocked'
    and t.task_id = any(array(
      select e.task_id from task_dependencies e where e.depends_on = any($1::text[])))
  order by t.task_id
  for no key update of t
),
gone as (
  delete from task_dependencies
  where depends_on = any($1::text[]) and (select count(*) from locked) >= 0
  returning task_id
),
counted as (
  select g.task_id, count(*)::integer as number, $2::float8 as aging_seconds
  from gone g
  where g.task_id || '' = g.task_id
  group by g.task_id
),
-- use unlocked
select
  -- use ready_row
  , is_delayed
from unlocked
where status = 'pending';


-- name: doom_dependents
-- Tasks $1 failed or were called off: everything that waits for them and says `fail`, however far
-- down, fails with them in one statement. Answers all that failed; edges into them go too.
with recursive doomed (task_id, because_of) as (
  select e.task_id, e.depends_on
  from task_dependencies e
  -- use waiting_to_fail
  where e.depends_on = any($1::text[])
  union
  select e.task_id, e.depends_on
  from doomed d
  cross join lateral (select e.task_id, e.depends_on from task_dependencies e where e.depends_on = d.task_id offset 0) e
  -- use waiting_to_fail
),
once as (
  select distinct on (task_id) task_id, because_of from doomed
  where task_id || '' = task_id
  order by task_id, because_of
),
locked as (
  select t.task_id
  from task_distributions t
  where t.task_id = any(array(select task_id from once))
  order by t.task_id
  for no key update of t
),
failed as (
  update task_distributions t
  set
    status = 'failed',
    completed_at = now(),
    error = jsonb_build_object(
      'code', 'dependency_failed',
      'message', 'task ' || o.because_of || ', which it depends on, did not complete',
      'depends_on', o.because_of)
  from once o
  where t.task_id = o.task_id and t.status = 'blocked' and (select count(*) from locked) > 0
  returning t.task_id, o.because_of, t.error
),
gone as (
  delete from task_dependencies where task_id = any(array(select task_id from failed))
),
logged as (
  insert into events (kind, task_id, node_id, data)
  select 'task_failed', task_id, $2, error::json from failed
)
select task_id from failed;


-- name: skip_dependents
-- Tasks $1 failed or were called off: those that wait for them and say `skip` are left out.
with hit as (
  select distinct on (e.task_id) e.task_id, e.depends_on as because_of
  from task_dependencies e
  cross join lateral (
    select from task_distributions t
    where t.task_id = e.task_id and t.status = 'blocked' and t.on_dependency_failure = 'skip' offset 0
  ) t
  where e.depends_on = any($1::text[]) and e.task_id || '' = e.task_id
  order by e.task_id, e.depends_on
),
locked as (
  select t.task_id
  from task_distributions t
  where t.task_id = any(array(select task_id from hit))
  order by t.task_id
  for no key update of t
),
skipped as (
  update task_distributions t
  set
    status = 'skipped',
    completed_at = now(),
    error = jsonb_build_object(
      'code', 'dependency_failed',
      'message', 'left out: task ' || h.because_of || ', which it depends on, did not complete',
      'depends_on', h.because_of)
  from hit h
  where t.task_id = h.task_id and t.status = 'blocked' and (select count(*) from locked) > 0
  returning t.task_id, t.error
),
gone as (
  delete from task_dependencies where task_id = any(array(select task_id from skipped))
),
logged as (
  insert into events (kind, task_id, node_id, data)
  select 'task_skipped', task_id, $2, error::json from skipped
)
select task_id from skipped;


-- name: missed_endings
-- Ended tasks that somebody still waits for: a node died between settling and unlocking.
select distinct d.task_id, d.status
from task_dependencies e
join task_distributions d on d.task_id = e.depends_on
where d.status in ('completed', 'skipped', 'failed', 'cancelled')
limit $1;


-- name: endings_of
-- Those of tasks $1 that have ended and that somebody still waits for.
select distinct d.task_id, d.status
from task_dependencies e
join task_distributions d on d.task_id = e.depends_on
where e.depends_on = any($1::text[]) and d.status in ('completed', 'skipped', 'failed', 'cancelled');


-- name: accept_attempts
-- Agents took the work. An attempt that is locked is ending at this moment: it is passed over.
with open as (
  select message_id from task_attempts
  where message_id = any($1::text::uuid[]) and status || '' = 'sent'
  for no key update skip locked
),
taken as (
  update task_attempts a
  set status = 'accepted', accepted_at = now()
  where a.message_id = any(array(select message_id from open))
  returning a.task_id, a.agent_id, a.message_id
)
insert into events (kind, task_id, agent_id, message_id, node_id)
select 'attempt_accepted', task_id, agent_id, message_id, $2 from taken;


-- name: note_progress
-- The last progress of each attempt; shown, never decided upon. Attempts that are ending are passed over.
with open as (
  select message_id from task_attempts
  where message_id = any($1::text::uuid[]) and status || '' in ('sent', 'accepted')
  for no key update skip locked
)
update task_attempts a
set progress = coalesce(i.progress, a.progress), note = coalesce(i.note, a.note)
from open o join unnest($1::text::uuid[], $2::text::real[], $3::text::text[]) as i (message_id, progress, note)
  on i.message_id = o.message_id
where a.message_id = o.message_id;


-- name: notify_many
-- Several hints in one round trip.
select pg_notify(n.channel, n.payload) from unnest($1::text[], $2::text[]) as n (channel, payload);


-- name: notify
-- A hint by itself.
select pg_notify($1, $2);
