-- How tasks hang together: by dependencies, also those that are met, and as parents and sub-tasks.


-- name: tied_by_id
-- These tasks, and the sub-tasks of those.
select task_id, depends_on, parent_id, submission_id::text as submission_id
from task_distributions
where task_id = any($1::text[]) or parent_id = any($2::text[]);


-- name: tied_by_waiting
-- Tasks of these submissions (tied to any task or, if $3, all), and tasks that wait or waited for those:
-- one pass over the table, for the rows of task_dependencies go when they are met. The first dependency
-- is looked at without unnest, which takes most of the time where there is only one.
select task_id, depends_on, parent_id, submission_id::text as submission_id
from task_distributions t
where (submission_id = any($1::uuid[])
    and ($3 or cardinality(depends_on) > 0 or has_dependents or parent_id is not null))
  or depends_on[1] = any($2::text[])
  or (cardinality(depends_on) > 1 and exists (
    select from unnest(t.depends_on[2:]) as d (task_id) where d.task_id = any($2::text[])));


-- name: times_of_tasks
-- When these tasks were made, could begin, and ended; in the order in which they came.
select task_id, name, status, depends_on, parent_id, created_at, run_at, completed_at
from task_distributions
where task_id = any($1::text[])
order by seq;


-- name: times_of_attempts
-- When these tasks were worked on, and by whom.
select task_id, attempt, agent_id, status, coalesce(accepted_at, sent_at) as began_at, finished_at
from task_attempts
where task_id = any($1::text[])
order by task_id, attempt;
