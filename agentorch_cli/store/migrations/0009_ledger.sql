-- What finished attempts say about agents: counts, cost, latencies and evidence, all of which fade.

-- One row per agent, skill and task type, and one per agent for everything it did, in which both are
-- empty. The row for everything is kept and not summed up: its evidence fades with every outcome of the
-- agent, it outlives the rows that are dropped, and a list of the fleet reads one row per agent.
-- Rows are locked in the order of the key, wherever several are written.
create table agent_ledger (
  agent_id       text not null check (length(agent_id) between 1 and 200),
  -- the first 200 letters of what the tasks required: 'any' for nothing, else names joined by '+'
  skill          text not null check (length(skill) <= 200),
  task_type      text not null check (length(task_type) <= 200),
  -- attempts by how they ended; these and what follows fade by time
  completed      double precision not null default 0 check (completed >= 0),
  failed         double precision not null default 0 check (failed >= 0),
  lost           double precision not null default 0 check (lost >= 0),
  cost_usd       double precision not null default 0 check (cost_usd >= 0),
  tokens         double precision not null default 0 check (tokens >= 0),
  -- attempts that did not say what they cost, or how many tokens they took
  cost_unknown   double precision not null default 0 check (cost_unknown >= 0),
  tokens_unknown double precision not null default 0 check (tokens_unknown >= 0),
  -- completed attempts by duration, as far as the last bucket that is not empty
  latency        double precision[] not null default '{}',
  -- right of so many trials; fade with each further outcome as well. A verified outcome may take back
  -- a success that is still on its way here, so `rights` may be less than nothing for a moment.
  rights         double precision not null default 0,
  trials         double precision not null default 0,
  updated_at     timestamptz not null default clock_timestamp(),
  primary key (agent_id, skill, task_type),
  constraint ledger_row_is_whole_or_part check ((skill = '') <= (task_type = ''))
);
create index ledger_recent on agent_ledger (updated_at);

alter table agent_ledger set (
  autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 1);

-- What agents finished in the minutes of the last hour, older ones are taken away.
create table agent_minutes (
  minute    timestamptz not null,
  agent_id  text not null,
  completed double precision not null default 0 check (completed >= 0),
  failed    double precision not null default 0 check (failed >= 0),
  lost      double precision not null default 0 check (lost >= 0),
  -- how long the completed and the failed ones took together
  seconds   double precision not null default 0 check (seconds >= 0),
  primary key (minute, agent_id)
);
alter table agent_minutes set (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.1);

-- What is left of a row that was written then.
create function agentorch_left(written_at timestamptz, half_life_seconds double precision)
returns double precision language sql stable as $$
  select exp(greatest(-30.0,
    -ln(2.0::float8) * greatest(0.0, extract(epoch from now() - written_at)::float8) / half_life_seconds))
$$;

-- A value after fading. What is as good as nothing becomes nothing: PostgreSQL refuses to multiply
-- its way down to zero.
create function agentorch_fade(value double precision, share double precision)
returns double precision language sql immutable as $$
  select case when abs(value) < 1e-9 then 0 else value * share end
$$;

-- A histogram after fading, with another one added to it; they may differ in length.
create function agentorch_fade(histogram double precision[], share double precision, added double precision[])
returns double precision[] language sql immutable as $$
  select coalesce(array_agg(agentorch_fade(coalesce(old, 0), share) + coalesce(new, 0) order by bucket), '{}')
  from unnest(histogram, added) with ordinality as u (old, new, bucket)
$$;

-- How often an agent is right by all its evidence, 0..100: what core/ledger.py calls the overall estimate.
create function agentorch_score(rights double precision, trials double precision)
returns double precision language sql immutable as $$
  select case when trials > 0
    then round((100 * (least(greatest(rights, 0), trials) + 1) / (trials + 2))::numeric, 3)::float8
    else 100 end
$$;
