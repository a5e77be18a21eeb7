-- Old history can go, and what was done for the database itself is written down.

-- Tasks that have not completed and have inputs: what they depend on is kept. A task that depends on
-- nothing is in no such index, and costs nothing here.
create index task_needs_inputs on task_distributions (seq)
  where depends_on <> '{}' and status <> 'completed';

-- When the database was last backed up, restored and pruned.
create table maintenance (
  what text primary key check (what in ('backup', 'restore', 'prune')),
  at   timestamptz not null default now(),
  data jsonb not null default '{}'
);

-- Edges come and go with every graph; events are only added, until old ones are pruned.
alter table task_dependencies set (
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);
alter table events set (
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1,
  autovacuum_vacuum_cost_delay = 1);
