-- The first schema: the fleet, the tasks, the attempts, what happened, and who leads.
--
-- Three tables are public (agent_registry, task_distributions, consensus_decisions): people
-- query them with psql, so their columns stay. The rest is the engine's.
--
-- Lock order, everywhere: task_distributions by task_id, then task_attempts, then the rest.

create table agent_registry (
  agent_id           text primary key check (length(agent_id) between 1 and 200),
  agent_type         text not null check (length(agent_type) between 1 and 200),
  capabilities       text[] not null default '{}',
  status             text not null default 'offline' check (status in ('online', 'offline', 'draining', 'paused')),
  slots              integer not null default 1 check (slots between 1 and 10000),
  performance_score  double precision not null default 100 check (performance_score between 0 and 100),
  performance_hourly double precision not null default 50 check (performance_hourly between 0 and 100),
  metadata           jsonb not null default '{}',
  exec               text,
  node_id            text,
  session_id         uuid,
  connected_at       timestamptz,
  disconnected_at    timestamptz,
  last_heartbeat     timestamptz,
  completed          bigint not null default 0,
  failed             bigint not null default 0,
  created_at         timestamptz not null default now(),
  updated_at         timestamptz not null default now(),
  -- an agent that is connected is connected to a node
  constraint agent_online_has_node check (status <> 'online' or node_id is not null)
);

-- Heartbeats and counts change often and are not indexed, so that they stay HOT.
alter table agent_registry set (fillfactor = 70);

create table task_distributions (
  task_id               text primary key check (length(task_id) between 1 and 200),
  seq                   bigint generated always as identity,
  name                  text,
  task_type             text not null,
  status                text not null check (status in
                          ('blocked', 'pending', 'running', 'completed', 'failed', 'cancelled', 'skipped')),
  priority              smallint not null default 5 check (priority between 0 and 10),
  required_capabilities text[] not null default '{}',
  coverage              text not null default 'each' check (coverage in ('each', 'team')),
  min_agents            smallint not null default 1 check (min_agents >= 1),
  max_agents            smallint not null default 1,
  -- how many agents it wants when it becomes ready: min_agents, or the first wave of a vote
  first_wave            smallint not null default 1 check (first_wave >= 1),
  -- how many agents the task wants at this moment; 0 = none (blocked, running with enough, ended)
  wanted                smallint not null default 0 check (wanted >= 0),
  -- dependencies that are not done yet
  waiting_on            integer not null default 0 check (waiting_on >= 0),
  depends_on            text[] not null default '{}',
  -- the key of each dependency in `inputs`, in the order of depends_on
  dependency_names      text[] not null default '{}',
  has_dependents        boolean not null default false,
  on_dependency_failure text not null default 'fail' check (on_dependency_failure in ('fail', 'run', 'skip')),
  -- the order of service: floor(epoch of readiness / aging_seconds) - priority; lower goes first
  urgency               bigint not null default 0,
  remaining_path        real not null default 1,
  run_at                timestamptz not null default now(),
  -- run_at lies ahead: kept apart so that the index of delayed tasks is empty on the hot path
  is_delayed            boolean not null default false,
  deadline              timestamptz,
  timeout_seconds       double precision not null default 300 check (timeout_seconds > 0),
  retries               integer not null default 2 check (retries >= 0),
  attempts_made         integer not null default 0,
  -- attempts of earlier generations: they do not count any more
  attempts_before       integer not null default 0,
  failures              integer not null default 0,
  losses                integer not null default 0,
  -- agents that failed this task: others are preferred
  tried_agents          text[] not null default '{}',
  -- aggregate, backoff_seconds, consensus, budget, labels: what the hot path does not look at
  options               jsonb not null default '{}',
  task_data             json,
  result                json,
  error                 jsonb,
  assigned_agents       text[] not null default '{}',
  submission_id         uuid not null,
  parent_id             text,
  idempotency_key       text check (length(idempotency_key) between 1 and 200),
  generation            integer not null default 0,
  created_at            timestamptz not null default now(),
  started_at            timestamptz,
  completed_at          timestamptz,
  constraint task_agents_in_order check (min_agents <= max_agents),
  constraint task_final_has_time
    check ((status in ('completed', 'failed', 'cancelled', 'skipped')) = (completed_at is not null)),
  constraint task_wants_only_while_open check (wanted = 0 or status in ('pending', 'running')),
  constraint task_blocked_waits check ((status = 'blocked') <= (waiting_on > 0))
);

-- The order of service: lower goes first. A task that waits longer than another by one step of
-- aging_seconds (0 = never) goes before one that has one more priority; see docs/decisions.
create function agentorch_urgency(ready_at timestamptz, priority integer, aging_seconds double precision)
returns bigint language sql stable as $$
  select case when aging_seconds > 0
    then floor(extract(epoch from ready_at)::float8 / aging_seconds)::bigint - priority
    else -priority end
$$;

-- What the scheduler reads, in the order of service.
create index task_ready on task_distributions (urgency, remaining_path desc, seq) where wanted > 0;
create index task_delayed on task_distributions (run_at) where is_delayed;
create index task_deadline on task_distributions (deadline)
  where deadline is not null and status in ('blocked', 'pending', 'running');
create index task_recent on task_distributions (seq);
create unique index task_idempotency on task_distributions (idempotency_key) where idempotency_key is not null;
create index task_parent on task_distributions (parent_id) where parent_id is not null;

alter table task_distributions set (
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);

-- One outcome per task: no way out of a final state but a new generation, which only `retry` opens.
create function agentorch_refuse_second_outcome() returns trigger language plpgsql as $$
begin
  raise exception 'task % already has its outcome (%)', old.task_id, old.status using errcode = 'AO001';
end $$;

create trigger task_one_outcome
  before update on task_distributions for each row
  when (old.status in ('completed', 'failed', 'cancelled', 'skipped')
        and new.generation = old.generation
        and (new.status is distinct from old.status or new.completed_at is distinct from old.completed_at))
  execute function agentorch_refuse_second_outcome();

-- Who waits for whom; read when a task with has_dependents ends.
create table task_dependencies (
  depends_on text not null,
  task_id    text not null,
  primary key (depends_on, task_id),
  constraint task_is_not_its_own_dependency check (depends_on <> task_id)
);

create table task_attempts (
  message_id  uuid primary key,
  task_id     text not null,
  agent_id    text not null,
  attempt     integer not null check (attempt >= 1),
  status      text not null check (status in
                ('sent', 'accepted', 'completed', 'failed', 'lost', 'timed_out', 'cancelled')),
  -- which of the agent's slots it holds while it is live
  slot        integer not null check (slot >= 0),
  role        text,
  node_id     text not null,
  sent_at     timestamptz not null default now(),
  accepted_at timestamptz,
  finished_at timestamptz,
  progress    real,
  note        text,
  result      json,
  error       jsonb,
  confidence  double precision,
  usage       jsonb,
  constraint attempt_live_is_open check ((status in ('sent', 'accepted')) = (finished_at is null)),
  -- two schedulers that both think they lead cannot both make the third attempt
  constraint attempt_is_made_once unique (task_id, attempt)
);

-- One live attempt per (task, agent).
create unique index attempt_live_once on task_attempts (task_id, agent_id) where status in ('sent', 'accepted');
-- Slots are never exceeded: a live attempt owns a numbered slot of its agent.
create unique index attempt_owns_slot on task_attempts (agent_id, slot) where status in ('sent', 'accepted');

alter table task_attempts set (
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);

-- What happened, one row per transition. `tx` lets a follower stop at the oldest transaction
-- that is still open, so that it never misses the row of a slow one.
create table events (
  tx         xid8 not null default pg_current_xact_id(),
  event_id   bigint generated always as identity,
  at         timestamptz not null default clock_timestamp(),
  kind       text not null,
  task_id    text,
  agent_id   text,
  message_id uuid,
  node_id    text,
  data       json,
  primary key (tx, event_id)
);
create index event_of_task on events (task_id) where task_id is not null;

create table consensus_decisions (
  decision_id          uuid primary key,
  task_id              text,
  topic                text not null,
  question             json,
  options              jsonb not null default '{}',
  participating_agents text[] not null default '{}',
  votes                json not null default '[]',
  rule                 text not null,
  threshold            double precision,
  electorate           integer not null check (electorate >= 1),
  needed               integer,
  status               text not null check (status in ('pending', 'reached', 'failed')),
  consensus_reached    boolean not null default false,
  final_decision       json,
  confidence           double precision,
  confidence_basis     text,
  decided_by           text,
  votes_used           integer not null default 0,
  votes_not_asked      integer not null default 0,
  margin               double precision,
  dissent              json not null default '[]',
  created_at           timestamptz not null default now(),
  decided_at           timestamptz,
  constraint decision_reached_is_reached check (consensus_reached = (status = 'reached'))
);
create unique index decision_of_task on consensus_decisions (task_id) where task_id is not null;
create index decision_recent on consensus_decisions (created_at);

-- One row per serve process, alive while expires_at lies ahead.
create table nodes (
  node_id      text primary key,
  -- tells whether a process id can be looked up here: one value per running kernel and pid namespace
  host_key     text not null,
  host         text not null,
  port         integer,
  pid          integer not null,
  pid_started  text,
  version      text not null,
  started_at   timestamptz not null default now(),
  heartbeat_at timestamptz not null default now(),
  expires_at   timestamptz not null
);

-- Who does what only one may do. The epoch goes up at each change of hands.
create table leases (
  name       text primary key,
  node_id    text not null,
  epoch      bigint not null default 1,
  expires_at timestamptz not null
);
