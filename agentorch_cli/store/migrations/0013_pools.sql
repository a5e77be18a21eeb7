-- Pools: agents and tasks that are scheduled by themselves, each pool by whoever holds its lease.

alter table agent_registry
  add column pool text not null default 'default' check (length(pool) between 1 and 200);

alter table task_distributions
  add column pool text not null default 'default' check (length(pool) between 1 and 200);

-- the one pool that a serve process schedules; it carries agents of any
alter table nodes add column pool text not null default 'default';

-- What the scheduler of a pool reads, in the order of service. It takes the place of task_ready.
create index task_ready_in_pool on task_distributions (pool, urgency, remaining_path desc, seq) where wanted > 0;
drop index task_ready;
