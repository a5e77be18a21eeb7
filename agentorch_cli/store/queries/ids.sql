-- Parts of ids, and the whole ids that they are the beginning or the end of. These look at every row,
-- and are asked only where a person has typed something that is no id as it stands.


-- name: tasks_called
-- The first $2 tasks whose id begins or ends with each of $1.
select w.word, t.id
from unnest($1::text[]) w (word)
cross join lateral (
  select task_id as id from task_distributions
  where starts_with(task_id, w.word) or right(task_id, length(w.word)) = w.word
  order by task_id
  limit $2
) t;


-- name: submissions_called
-- The first $2 submissions whose id begins or ends with each of $1.
select w.word, t.id
from unnest($1::text[]) w (word)
cross join lateral (
  select distinct submission_id::text as id from task_distributions
  where starts_with(submission_id::text, w.word) or right(submission_id::text, length(w.word)) = w.word
  order by id
  limit $2
) t;


-- name: decisions_called
-- The first $2 votes whose id begins or ends with each of $1.
select w.word, d.id
from unnest($1::text[]) w (word)
cross join lateral (
  select decision_id::text as id from consensus_decisions
  where starts_with(decision_id::text, w.word) or right(decision_id::text, length(w.word)) = w.word
  order by id
  limit $2
) d;


-- name: deadlocks_called
-- The first $2 deadlocks whose id begins or ends with each of $1.
select w.word, k.id
from unnest($1::text[]) w (word)
cross join lateral (
  select deadlock_id::text as id from deadlocks
  where starts_with(deadlock_id::text, w.word) or right(deadlock_id::text, length(w.word)) = w.word
  order by id
  limit $2
) k;


-- name: tasks_named
-- Of the tasks of each of the names $1 the newest $2, the newest first.
select word, id
from (
  select
    name as word, task_id as id,
    row_number() over (partition by name order by seq desc) as place
  from task_distributions
  where name = any($1::text[])
) t
where place <= $2
order by word, place;
