-- Votes that can be trusted: frozen voters, ballots of their own, what became of them, and who is right how often.

alter table consensus_decisions
  -- whose reliabilities count here: the capabilities that the task asks for
  add column capability     text,
  -- the frozen electorate with what was known of it: [{agent_id, reliability, estimate, performance}]
  add column voters         json not null default '[]',
  -- voters that were gone when they should have been asked
  add column lost_agents    text[] not null default '{}',
  -- vote: the electorate is asked; judge: it did not agree, and somebody else is
  add column stage          text not null default 'vote' check (stage in ('vote', 'judge')),
  -- what was done because there was no agreement, step by step
  add column escalation     json not null default '[]',
  -- pairs of canonical answers that a comparer was asked about: [[one, other, same]]
  add column compared       json not null default '[]',
  -- what a judge is told of it: how many gave which answer
  add column brief          json,
  -- the leading answer in its canonical form, and how sure the rule itself was
  add column answer         text,
  add column raw_confidence double precision,
  add column raw_basis      text,
  -- proposals: until when votes are taken, who may read it, and who closed it
  add column deadline       timestamptz,
  add column opened_by      text,
  add column closed_by      text;

create index decision_open on consensus_decisions (created_at) where status = 'pending';
create index decision_of_capability on consensus_decisions (capability) where status <> 'pending';

-- One ballot per voter and vote. A second one has no row to go to.
create table consensus_ballots (
  decision_id      uuid not null references consensus_decisions (decision_id) on delete cascade,
  agent_id         text not null check (length(agent_id) between 1 and 200),
  status           text not null check (status in ('answered', 'abstained', 'lost', 'late')),
  -- as it was given
  vote             json,
  -- as it was counted; null where it was not
  answer           text,
  choices          text[] not null default '{}',
  confidence       double precision,
  seconds          double precision,
  weight           double precision,
  message_id       uuid,
  -- what this ballot earned its agent, so that a verified outcome can take it back
  credit_successes double precision not null default 0,
  credit_trials    double precision not null default 0,
  is_verified      boolean not null default false,
  cast_at          timestamptz not null default now(),
  primary key (decision_id, agent_id)
);

-- How often an agent is right, per capability. Agreement and verified outcomes are kept apart.
create table agent_reliability (
  agent_id           text not null,
  capability         text not null,
  successes          double precision not null default 0 check (successes >= 0),
  trials             double precision not null default 0 check (trials >= 0),
  verified_successes double precision not null default 0 check (verified_successes >= 0),
  verified_trials    double precision not null default 0 check (verified_trials >= 0),
  -- what the ballots of many votes together say; null where that has not proved better
  inferred           double precision check (inferred > 0 and inferred < 1),
  updated_at         timestamptz not null default now(),
  primary key (agent_id, capability)
);

-- What is known to be true: by a person, a check task or a file.
create table task_outcomes (
  task_id        text primary key,
  decision_id    uuid,
  capability     text not null,
  is_right       boolean,
  answer         text,
  source         text not null check (source in ('person', 'check', 'file')),
  said_by        text,
  -- of the vote, as it stood: what a calibration is fitted to
  leader_right   boolean,
  raw_confidence double precision,
  raw_basis      text,
  votes_used     integer,
  at             timestamptz not null default now()
);
create index outcome_of_capability on task_outcomes (capability, at);

-- The map from a rule's own confidence to a probability.
create table consensus_calibration (
  capability text not null,
  basis      text not null,
  outcomes   integer not null,
  centre     double precision[] not null,
  scale      double precision[] not null,
  weights    double precision[] not null,
  fitted_at  timestamptz not null default now(),
  primary key (capability, basis)
);

-- What the background job last found for a capability.
create table consensus_inference (
  capability     text primary key,
  tasks          integer not null,
  verified       integer not null,
  inferred_right integer not null,
  decided_right  integer not null,
  is_used        boolean not null,
  fitted_at      timestamptz not null default now()
);
