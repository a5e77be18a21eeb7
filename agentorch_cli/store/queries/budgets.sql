-- Budgets: what is reserved for attempts, and what was spent. How attempts are settled is a trigger
-- of the schema (0006_budgets.sql).


-- name: lock_budgets
-- Lock the budgets of tasks that this transaction has locked, in the order of their names.
select b.scope, b.key
from budgets b
where (b.scope, b.key) in (
  select k.scope, k.key
  from task_distributions t cross join lateral agentorch_budget_keys(t.task_id, t.options) k
  where t.task_id = any($1::text[])
)
order by b.scope, b.key
for update;


-- name: budgets_of_tasks
-- The budgets that tasks are charged to as they stand, one row for each task and budget; with what
-- the task says, what attempts of its type were seen to use, and what is reserved for its parent.
select
  t.task_id, t.wanted, t.options -> 'budget' ->> 'attempt_usd' as said_usd,
  t.options -> 'budget' ->> 'attempt_tokens' as said_tokens,
  b.scope, b.key, b.cost_usd, b.tokens, b.attempt_usd, b.attempt_tokens,
  case when w.is_new then 0 else b.spent_usd end as spent_usd,
  case when w.is_new then 0 else b.spent_tokens end as spent_tokens,
  b.reserved_usd, b.reserved_tokens,
  (select max(x) from unnest(u.usd) as x) as seen_usd, (select max(x) from unnest(u.tokens) as x) as seen_tokens,
  l.message_id::text as lender, l.held_usd as lender_usd, l.held_tokens as lender_tokens
from task_distributions t
cross join lateral (select distinct scope, key from agentorch_budget_keys(t.task_id, t.options)) k
join budgets b on b.scope = k.scope and b.key = k.key
cross join lateral (
  select agentorch_window(b.period, b.window_start, now()) > b.window_start as is_new
) w
left join usage_seen u on u.task_type = t.task_type
left join lateral (
  select f.message_id, f.held_usd, f.held_tokens
  from task_attempts a
  join attempt_funding f on f.message_id = a.message_id and f.scope = b.scope and f.key = b.key
  where a.task_id = t.parent_id and a.status in ('sent', 'accepted') and a.is_funded and f.settled_at is null
  order by f.held_usd desc, f.held_tokens desc, f.message_id
  limit 1
) l on true
where t.task_id = any($1::text[])
order by t.task_id, b.scope, b.key;


-- name: fund_attempts
-- Reserve for attempts that this transaction has made, on budgets that it has locked. Nothing is
-- reserved beyond a limit: the answer counts the budgets that could pay.
with input as (
  select * from unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::numeric[], $7::numeric[], $8::numeric[],
    $9::numeric[], $10::uuid[]
  ) as i (
    message_id, task_id, agent_id, scope, key, usd, tokens, borrowed_usd, borrowed_tokens, lender
  )
),
asked as (
  select
    i.scope, i.key, sum(coalesce(i.usd, 0) - i.borrowed_usd) as usd,
    sum(coalesce(i.tokens, 0) - i.borrowed_tokens) as tokens
  from input i group by i.scope, i.key
),
standing as (
  select
    b.scope, b.key, w.begins, a.usd, a.tokens,
    case when w.begins > b.window_start then 0 else b.spent_usd end as spent_usd,
    case when w.begins > b.window_start then 0 else b.spent_tokens end as spent_tokens,
    case when w.begins > b.window_start then 0 else b.unknown_usd end as unknown_usd,
    case when w.begins > b.window_start then 0 else b.unknown_tokens end as unknown_tokens,
    case when w.begins > b.window_start then 0 else b.unknown_attempts end as unknown_attempts
  from asked a
  join budgets b on b.scope = a.scope and b.key = a.key
  cross join lateral (select agentorch_window(b.period, b.window_start, now()) as begins) w
),
reserved as (
  update budgets b
  set
    spent_usd = s.spent_usd, spent_tokens = s.spent_tokens, unknown_usd = s.unknown_usd,
    unknown_tokens = s.unknown_tokens, unknown_attempts = s.unknown_attempts, window_start = s.begins,
    reserved_usd = b.reserved_usd + s.usd, reserved_tokens = b.reserved_tokens + s.tokens, updated_at = now()
  from standing s
  where b.scope = s.scope and b.key = s.key
    and (s.usd = 0 or b.cost_usd is null or s.spent_usd + b.reserved_usd + s.usd <= b.cost_usd)
    and (s.tokens = 0 or b.tokens is null or s.spent_tokens + b.reserved_tokens + s.tokens <= b.tokens)
  returning
    b.scope, b.key, b.cost_usd, b.tokens, b.spent_usd, b.spent_tokens, b.reserved_usd, b.reserved_tokens
),
lent as (
  update attempt_funding f
  set held_usd = f.held_usd - l.usd, held_tokens = f.held_tokens - l.tokens
  from (
    select lender, scope, key, sum(borrowed_usd) as usd, sum(borrowed_tokens) as tokens
    from input where lender is not null group by lender, scope, key
  ) l
  where f.message_id = l.lender and f.scope = l.scope and f.key = l.key
),
funded as (
  insert into attempt_funding (
    message_id, scope, key, granted_usd, granted_tokens, held_usd, held_tokens, lender, borrowed_usd,
    borrowed_tokens)
  select
    message_id, scope, key, usd, tokens, coalesce(usd, 0), coalesce(tokens, 0), lender, borrowed_usd, borrowed_tokens
  from input
),
marked as (
  update task_attempts set is_funded = true where message_id = any($1::uuid[])
),
logged as (
  insert into events (kind, task_id, agent_id, message_id, node_id, data)
  select
    'budget_reserved', i.task_id, i.agent_id, i.message_id, $11,
    json_strip_nulls(json_build_object(
      'scope', i.scope, 'key', i.key, 'cost_usd', trim_scale(i.usd), 'tokens', i.tokens,
      'limit_usd', trim_scale(r.cost_usd), 'spent_usd', case when r.cost_usd is not null then trim_scale(r.spent_usd) end,
      'reserved_usd', case when r.cost_usd is not null then trim_scale(r.reserved_usd) end,
      'limit_tokens', r.tokens, 'spent_tokens', case when r.tokens is not null then r.spent_tokens end,
      'reserved_tokens', case when r.tokens is not null then r.reserved_tokens end))
  from input i join reserved r on r.scope = i.scope and r.key = i.key
)
select (select count(*) from reserved) as paid, (select count(*) from asked) as asked;


-- name: tell_usage
-- What attempts used that had ended before they told it.
update task_attempts a
set usage = i.usage::jsonb
from unnest($1::uuid[], $2::text[]) as i (message_id, usage)
where a.message_id = i.message_id and a.status not in ('sent', 'accepted') and a.usage is null;


-- name: insert_budgets
-- The budgets that a submission brings: its own, and those of its tasks.
insert into budgets (scope, key, cost_usd, tokens, attempt_usd, attempt_tokens)
select *
from unnest($1::text[], $2::text[], $3::numeric[], $4::numeric[], $5::numeric[], $6::numeric[])
on conflict (scope, key) do nothing;


-- name: set_budget
-- Set or change the budget of a label; those who wait for it look again.
with stored as (
  insert into budgets as b (scope, key, cost_usd, tokens, attempt_usd, attempt_tokens, period)
  values ('label', $1, $2, $3, $4, $5, $6)
  on conflict (scope, key) do update set
    cost_usd = excluded.cost_usd, tokens = excluded.tokens, attempt_usd = excluded.attempt_usd,
    attempt_tokens = excluded.attempt_tokens, period = excluded.period, updated_at = now()
  returning b.scope, b.key, b.cost_usd, b.tokens
),
logged as (
  insert into events (kind, node_id, data)
  select 'budget_set', $7, json_strip_nulls(json_build_object(
    'scope', scope, 'key', key, 'limit_usd', trim_scale(cost_usd), 'limit_tokens', tokens))
  from stored
),
hinted as (
  select pg_notify('agentorch_budgets', '*')
)
select count(*) from stored, hinted;


-- name: change_budget
-- Change the limits of a budget that is there.
with stored as (
  update budgets
  set cost_usd = $3, tokens = $4, attempt_usd = $5, attempt_tokens = $6, updated_at = now()
  where scope = $1 and key = $2
  returning scope, key, cost_usd, tokens
),
logged as (
  insert into events (kind, node_id, data)
  select 'budget_set', $7, json_strip_nulls(json_build_object(
    'scope', scope, 'key', key, 'limit_usd', trim_scale(cost_usd), 'limit_tokens', tokens))
  from stored
),
hinted as (
  select pg_notify('agentorch_budgets', '*')
)
select count(*) from stored, hinted;


-- name: remove_budget
-- A budget limits nothing any more; what it knew of attempts goes with it.
with gone as (
  delete from budgets where scope = $1 and key = $2 returning scope, key
),
logged as (
  insert into events (kind, node_id, data)
  select 'budget_removed', $3, json_build_object('scope', scope, 'key', key) from gone
),
hinted as (
  select pg_notify('agentorch_budgets', '*')
)
select count(*) as number from gone, hinted;


-- name: show_budgets
-- Budgets as they stand, those of labels first, then the newest.
select
  b.scope, b.key, b.cost_usd, b.tokens, b.attempt_usd, b.attempt_tokens, b.period,
  b.reserved_usd, b.reserved_tokens, w.begins as window_start, b.created_at, b.updated_at,
  case when w.begins > b.window_start then 0 else b.spent_usd end as spent_usd,
  case when w.begins > b.window_start then 0 else b.spent_tokens end as spent_tokens,
  case when w.begins > b.window_start then 0 else b.unknown_usd end as unknown_usd,
  case when w.begins > b.window_start then 0 else b.unknown_tokens end as unknown_tokens,
  case when w.begins > b.window_start then 0 else b.unknown_attempts end as unknown_attempts,
  (select count(*)::integer from attempt_funding f
   where f.scope = b.scope and f.key = b.key and f.settled_at is null) as running
from budgets b
cross join lateral (select agentorch_window(b.period, b.window_start, now()) as begins) w
where ($1::text is null or b.scope = $1) and ($2::text is null or b.key = $2)
order by b.scope <> 'label', b.created_at desc, b.scope, b.key
limit $3;


-- name: label_budgets
-- The labels that have a budget, and seconds until the next of them begins anew.
select
  key,
  extract(epoch from (
    date_trunc(period, now() at time zone 'UTC') + ('1 ' || period)::interval) at time zone 'UTC' - now()
  )::float8 as renews_in_s
from budgets where scope = 'label';


-- name: budgets_of_task
-- The budgets that one task is charged to, by name.
select b.scope, b.key
from task_distributions t
cross join lateral (select distinct scope, key from agentorch_budget_keys(t.task_id, t.options)) k
join budgets b on b.scope = k.scope and b.key = k.key
where t.task_id = $1
order by b.scope desc, b.key;


-- name: waiting_on_budgets
-- Ready tasks that are charged to a budget, in the order of service.
select t.task_id
from task_distributions t
where t.wanted > 0 and not t.is_delayed
  and (t.options ? 'budget' or t.options ? 'funded_by' or t.options ? 'labels')
  and exists (select from budgets)
  and exists (
    select from agentorch_budget_keys(t.task_id, t.options) k
    join budgets b on b.scope = k.scope and b.key = k.key)
order by t.urgency, t.remaining_path desc, t.seq
limit $1;


-- name: spend
-- What all attempts said that they used: today (UTC), and altogether; and those on a budget that did not say.
select
  coalesce(sum(s.usd) filter (where s.day = t.today), 0) as usd_today,
  coalesce(sum(s.tokens) filter (where s.day = t.today), 0) as tokens_today,
  coalesce(sum(s.usd_attempts) filter (where s.day = t.today), 0)::bigint as usd_attempts_today,
  coalesce(sum(s.tokens_attempts) filter (where s.day = t.today), 0)::bigint as tokens_attempts_today,
  coalesce(sum(s.usd), 0) as usd, coalesce(sum(s.tokens), 0) as tokens,
  coalesce(sum(s.usd_attempts), 0)::bigint as usd_attempts,
  coalesce(sum(s.tokens_attempts), 0)::bigint as tokens_attempts,
  (select count(distinct message_id)::integer from attempt_funding
   where is_unknown and settled_at >= t.midnight) as unknown_today,
  (select count(distinct message_id)::integer from attempt_funding where is_unknown) as unknown_attempts
from (
  select (now() at time zone 'UTC')::date as today, date_trunc('day', now() at time zone 'UTC') at time zone 'UTC' as midnight
) t
left join spend s on true
group by t.today, t.midnight;


-- name: funding_of_attempts
-- What was reserved for the attempts of a task, and what they were charged.
select
  f.message_id::text as message_id, f.scope, f.key, f.granted_usd, f.granted_tokens, f.held_usd, f.held_tokens,
  f.charged_usd, f.charged_tokens, f.is_unknown, f.settled_at
from attempt_funding f
where f.message_id = any($1::uuid[])
order by f.message_id, f.scope desc, f.key;


-- name: note_usage
-- What live attempts say that they have used so far; shown, never charged. Those that are ending are passed over.
with open as (
  select message_id from task_attempts
  where message_id = any($1::uuid[]) and status || '' in ('sent', 'accepted')
  for no key update skip locked
)
update task_attempts a
set usage_so_far = i.usage::jsonb
from open o join unnest($1::uuid[], $2::text[]) as i (message_id, usage) on i.message_id = o.message_id
where a.message_id = o.message_id;
