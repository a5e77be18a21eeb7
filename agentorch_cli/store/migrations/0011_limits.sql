-- How much may start: rates as token buckets, and concurrency keys.

create table rate_limits (
  scope       text not null check (scope in ('agent', 'capability', 'type')),
  name        text not null check (length(name) between 1 and 200),
  number      integer not null check (number between 1 and 1000000),
  per_seconds double precision not null check (per_seconds > 0),
  burst       integer not null check (burst between 1 and 1000000),
  -- tokens in the bucket at filled_at; a start that asks for more than it holds leaves a debt
  level       double precision not null check (level <= burst),
  filled_at   timestamptz not null default now(),
  created_at  timestamptz not null default now(),
  primary key (scope, name)
);

create function agentorch_tokens(level double precision, filled_at timestamptz, number integer,
  per_seconds double precision, burst integer)
returns double precision language sql stable as $$
  select least(burst, level + greatest(0, extract(epoch from now() - filled_at)::float8) * number / per_seconds)
$$;

-- A running task owns a numbered slot of its concurrency key, so no more can run than there are slots.
alter table task_distributions
  add column concurrency_key  text,
  add column concurrency_slot integer check (concurrency_slot >= 0);

create unique index task_owns_key_slot on task_distributions (concurrency_key, concurrency_slot)
  where concurrency_slot is not null and status = 'running';
