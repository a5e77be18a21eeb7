-- What things are called: for "did you mean", and for the completion of shells.


-- name: names_of_tasks
-- What tasks are called; those without a name are left out.
select task_id, name
from task_distributions
where task_id = any($1::text[]) and name is not null;


-- name: known_names
-- The ids of kind $1 with what else tells them apart, the newest or first of them, at most $2.
select id, also
from (
  (
    select task_id as id, coalesce(name, task_type) as also
    from task_distributions
    where $1 = 'task'
    order by seq desc
    limit $2
  )
  union all
  (
    select agent_id, agent_type
    from agent_registry
    where $1 = 'agent'
    order by agent_id
    limit $2
  )
  union all
  (
    select decision_id::text, topic
    from consensus_decisions
    where $1 = 'vote'
    order by created_at desc
    limit $2
  )
  union all
  (
    select deadlock_id::text, kind
    from deadlocks
    where $1 = 'deadlock'
    order by deadlock_id desc
    limit $2
  )
  union all
  (
    select name, cron
    from schedules
    where $1 = 'schedule'
    order by name
    limit $2
  )
  union all
  (
    select name, array_to_string(scopes, ' ')
    from tokens
    where $1 = 'token' and revoked_at is null
    order by name
    limit $2
  )
  union all
  (
    select key, scope
    from budgets
    where $1 = 'budget'
    order by key
    limit $2
  )
  union all
  (
    select scope || ':' || name, number || ' in ' || per_seconds || ' s'
    from rate_limits
    where $1 = 'limit'
    order by scope, name
    limit $2
  )
) as known
