-- What an attempt says that it has used so far: shown, never charged. `usage` is told once, at its end.
alter table task_attempts add column usage_so_far jsonb;

-- As before, but labels `a=b: c` and `a: b=c` are two: in the name, `=` and `\` stand behind a `\`.
create or replace function agentorch_budget_keys(task_id text, options jsonb)
returns table (scope text, key text) language sql immutable as $$
  select 'task', task_id where options ? 'budget'
  union all
  select 'submission', options ->> 'funded_by' where options ? 'funded_by'
  union all
  select 'label', replace(replace(l.key, '\', '\\'), '=', '\=') || '=' || l.value
  from jsonb_each_text(options -> 'labels') l
$$;

-- What ended without success is what people list. A task that completes is never in this index, and costs
-- nothing here.
create index task_ended_badly on task_distributions (seq) where status in ('failed', 'cancelled', 'skipped');
