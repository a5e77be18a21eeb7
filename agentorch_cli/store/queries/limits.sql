-- Rates and concurrency keys.


-- name: set_limit
-- Set a rate; a bucket that is new begins full, another keeps what it holds.
with stored as (
  insert into rate_limits as l (scope, name, number, per_seconds, burst, level)
  values ($1, $2, $3, $4, $5::integer, $5::integer)
  on conflict (scope, name) do update set
    number = excluded.number, per_seconds = excluded.per_seconds, burst = excluded.burst,
    level = least(excluded.burst, agentorch_tokens(l.level, l.filled_at, l.number, l.per_seconds, l.burst)),
    filled_at = now()
  returning scope
),
hinted as (
  select pg_notify('agentorch_limits', '*')
)
select count(*) from stored, hinted;


-- name: remove_limits
-- Take rates away.
with gone as (
  delete from rate_limits l
  using unnest($1::text[], $2::text[]) as i (scope, name)
  where l.scope = i.scope and l.name = i.name
  returning l.scope, l.name
),
hinted as (
  select pg_notify('agentorch_limits', '*')
)
select scope, name from gone, hinted;


-- name: limits
-- All rates, with what their buckets hold now.
select
  scope, name, number, per_seconds, burst,
  agentorch_tokens(level, filled_at, number, per_seconds, burst) as level, created_at
from rate_limits
order by scope, name;


-- name: take_tokens
-- Take tokens out of buckets; those that have too few are left as they are, and not answered.
with input as (
  select * from unnest($1::text[], $2::text[], $3::integer[]) as i (scope, name, number)
),
locked as (
  select l.scope
  from rate_limits l join input i on i.scope = l.scope and i.name = l.name
  order by l.scope, l.name
  for no key update of l
)
update rate_limits l
set
  level = agentorch_tokens(l.level, l.filled_at, l.number, l.per_seconds, l.burst) - i.number,
  filled_at = now()
from input i
where l.scope = i.scope and l.name = i.name and (select count(*) from locked) > 0
  and agentorch_tokens(l.level, l.filled_at, l.number, l.per_seconds, l.burst) >= least(i.number, l.burst) - 1e-6
returning l.scope, l.name;


-- name: take_keys
-- Note which slots of their concurrency keys tasks will own once they run.
with locked as (
  select task_id from task_distributions where task_id = any($1::text[]) order by task_id for no key update
)
update task_distributions t
set concurrency_key = i.concurrency_key, concurrency_slot = i.slot
from unnest($1::text[], $2::text[], $3::integer[]) as i (task_id, concurrency_key, slot)
where t.task_id = i.task_id and t.status = 'pending' and (select count(*) from locked) > 0;


-- name: key_owners
-- Running tasks that own slots of these concurrency keys; null: of any.
select concurrency_key, concurrency_slot, task_id
from task_distributions
where indexed_status = 'running' and concurrency_slot is not null
  and ($1::text[] is null or concurrency_key = any($1::text[]));
