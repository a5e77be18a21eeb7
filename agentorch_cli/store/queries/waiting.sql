-- Work that waits for its own sub-tasks, and gives its slot back meanwhile.


-- name: begin_wait
-- An attempt waits for sub-task $2. If $3 it gives its slot back, unless its agent cannot do
-- other work meanwhile (metadata `park = false`).
update task_attempts a
set
  awaits = case when $2 = any(a.awaits) then a.awaits else a.awaits || $2::text end,
  waits_since = coalesce(a.waits_since, now()),
  wants_slot_since = null,
  is_parked = a.is_parked or ($3 and not exists (
    select 1 from agent_registry r where r.agent_id = a.agent_id and r.metadata ->> 'park' = 'false'))
where a.message_id = $1 and a.status in ('sent', 'accepted')
returning a.is_parked, a.is_lent;


-- name: end_wait
-- Sub-task $2 ended. After the last one an attempt that gave its slot back wants one again.
update task_attempts a
set
  awaits = array_remove(a.awaits, $2),
  waits_since = case when array_remove(a.awaits, $2) = '{}' then null else a.waits_since end,
  wants_slot_since = case
    when array_remove(a.awaits, $2) = '{}' and a.is_parked and not a.is_lent
    then coalesce(a.wants_slot_since, now()) end
where a.message_id = $1 and a.status in ('sent', 'accepted')
returning a.wants_slot_since is not null as wants_slot, a.waits_since is not null as is_waiting;


-- name: continuations
-- Attempts at tasks of pool $1 that only want a slot of their agent to go on, in the order of service.
select a.message_id, a.task_id, a.agent_id, a.node_id
from task_attempts a
join task_distributions t on t.task_id = a.task_id
where a.wants_slot_since is not null and a.is_parked and a.status in ('sent', 'accepted') and t.pool = $1
order by t.priority desc, a.wants_slot_since, a.message_id;


-- name: grant_slots
-- Attempts go on, each in a slot of its agent; the unique index refuses a slot that is taken.
update task_attempts a
set is_parked = false, slot = i.slot, wants_slot_since = null
from unnest($1::uuid[], $2::integer[]) as i (message_id, slot)
where a.message_id = i.message_id and a.status in ('sent', 'accepted')
  and a.is_parked and a.wants_slot_since is not null
returning a.message_id;


-- name: slots_of
-- Which slots these attempts own now, and whether they want one.
select message_id, slot, is_parked, is_lent, wants_slot_since is not null as wants_slot from task_attempts
where message_id = any($1::uuid[]) and status in ('sent', 'accepted');


-- name: lineage_up
-- The task $1 and its ancestors, nearest first, at most $2 of them.
with recursive line (task_id, parent_id, depth) as (
  select task_id, parent_id, 1 from task_distributions where task_id = $1
  union all
  select t.task_id, t.parent_id, l.depth + 1
  from line l join task_distributions t on t.task_id = l.parent_id
  where l.depth < $2
)
select
  t.task_id, t.task_type, t.required_capabilities, t.task_data, l.depth,
  t.options ->> 'concurrency_key' as concurrency_key, t.options ->> 'funded_by' as funded_by,
  t.options ->> 'labels' as labels
from line l join task_distributions t on t.task_id = l.task_id
order by l.depth;


-- name: count_children
-- How many sub-tasks a task has submitted so far.
select count(*) as number from task_distributions where parent_id = $1;


-- name: declare_node
-- What this node's engine takes at most.
update nodes set most_running = $2 where node_id = $1;
