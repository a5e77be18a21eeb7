-- What finished attempts say about agents. None of this is on the way of a task.


-- name: keep_accounts
-- What a node's attempts brought since it wrote last: one row per agent, skill and task type, and one
-- with both empty for everything the agent did, which also goes into this minute. $15 is the half-life in
-- seconds, $16 the share of the evidence that one outcome takes away: `trials` is what the new outcomes
-- weigh together, so that 1 - $16 * trials is what they leave of the old ones.
with input as (
  select *
  from unnest(
    $1::text[], $2::text[], $3::text[], $4::float8[], $5::float8[], $6::float8[], $7::float8[], $8::float8[],
    $9::float8[], $10::float8[], $11::text[], $12::float8[], $13::float8[], $14::float8[]
  ) as i (
    agent_id, skill, task_type, completed, failed, lost, cost_usd, tokens, cost_unknown, tokens_unknown,
    latency, rights, trials, seconds
  )
  where exists (select from agent_registry a where a.agent_id = i.agent_id)
),
kept as (
  insert into agent_ledger as l (
    agent_id, skill, task_type, completed, failed, lost, cost_usd, tokens, cost_unknown, tokens_unknown, latency,
    rights, trials)
  select
    agent_id, skill, task_type, completed, failed, lost, cost_usd, tokens, cost_unknown, tokens_unknown,
    latency::float8[], rights, trials
  from input
  order by agent_id, skill, task_type
  on conflict (agent_id, skill, task_type) do update set
    completed = agentorch_fade(l.completed, agentorch_left(l.updated_at, $15)) + excluded.completed,
    failed = agentorch_fade(l.failed, agentorch_left(l.updated_at, $15)) + excluded.failed,
    lost = agentorch_fade(l.lost, agentorch_left(l.updated_at, $15)) + excluded.lost,
    cost_usd = agentorch_fade(l.cost_usd, agentorch_left(l.updated_at, $15)) + excluded.cost_usd,
    tokens = agentorch_fade(l.tokens, agentorch_left(l.updated_at, $15)) + excluded.tokens,
    cost_unknown = agentorch_fade(l.cost_unknown, agentorch_left(l.updated_at, $15)) + excluded.cost_unknown,
    tokens_unknown = agentorch_fade(l.tokens_unknown, agentorch_left(l.updated_at, $15)) + excluded.tokens_unknown,
    latency = agentorch_fade(l.latency, agentorch_left(l.updated_at, $15), excluded.latency),
    rights = agentorch_fade(l.rights, agentorch_left(l.updated_at, $15) * (1 - $16::float8 * excluded.trials))
      + excluded.rights,
    trials = agentorch_fade(l.trials, agentorch_left(l.updated_at, $15) * (1 - $16::float8 * excluded.trials))
      + excluded.trials,
    updated_at = clock_timestamp()
  returning l.agent_id
),
counted as (
  insert into agent_minutes as m (minute, agent_id, completed, failed, lost, seconds)
  select date_trunc('minute', now()), agent_id, completed, failed, lost, seconds
  from input
  where skill = ''
  order by agent_id
  on conflict (minute, agent_id) do update set
    completed = m.completed + excluded.completed, failed = m.failed + excluded.failed,
    lost = m.lost + excluded.lost, seconds = m.seconds + excluded.seconds
)
select count(*) as rows from kept;


-- name: credit_ledger
-- What a vote that closed, or a verified outcome of task $1, says of agents: in their row for skill $2 and
-- the task's type, and in the one for everything. $6 is what it leaves of the evidence that was there:
-- less than 1 where it is one more outcome, 1 where it corrects one. $7 is the half-life in seconds.
insert into agent_ledger as l (agent_id, skill, task_type, rights, trials)
select i.agent_id, k.skill, k.task_type, i.rights, i.trials
from unnest($3::text[], $4::float8[], $5::float8[]) as i (agent_id, rights, trials)
cross join (
  select '' as skill, '' as task_type
  union all
  select left($2, 200), task_type from task_distributions where task_id = $1
) k
where exists (select from agent_registry a where a.agent_id = i.agent_id)
order by i.agent_id, k.skill, k.task_type
on conflict (agent_id, skill, task_type) do update set
  completed = agentorch_fade(l.completed, agentorch_left(l.updated_at, $7)),
  failed = agentorch_fade(l.failed, agentorch_left(l.updated_at, $7)),
  lost = agentorch_fade(l.lost, agentorch_left(l.updated_at, $7)),
  cost_usd = agentorch_fade(l.cost_usd, agentorch_left(l.updated_at, $7)),
  tokens = agentorch_fade(l.tokens, agentorch_left(l.updated_at, $7)),
  cost_unknown = agentorch_fade(l.cost_unknown, agentorch_left(l.updated_at, $7)),
  tokens_unknown = agentorch_fade(l.tokens_unknown, agentorch_left(l.updated_at, $7)),
  latency = agentorch_fade(l.latency, agentorch_left(l.updated_at, $7), '{}'),
  rights = agentorch_fade(l.rights, agentorch_left(l.updated_at, $7) * $6::float8) + excluded.rights,
  trials = greatest(0, agentorch_fade(l.trials, agentorch_left(l.updated_at, $7) * $6::float8) + excluded.trials),
  updated_at = clock_timestamp();


-- name: reckon_hour
-- Once a minute while there was work in the last hour: `performance_hourly` by the plain rule
-- (50 + 50 x completed / ended - 10 where they took more than 5 minutes in the mean; 50 without any) and
-- `performance_score` by the ledger, for whom they have changed; minutes that are older than an hour go.
-- Rows that somebody holds are left to the next time. Answers how many agents finished something.
with pruned as (
  delete from agent_minutes where minute <= now() - interval '1 hour'
),
hour as (
  select
    agent_id, sum(completed) as completed, sum(completed + failed + lost) as ended,
    sum(seconds) / nullif(sum(completed + failed), 0) as mean_seconds
  from agent_minutes
  where minute > now() - interval '1 hour'
  group by agent_id
),
stale as (
  select a.agent_id, w.hourly, w.score
  from agent_registry a
  left join hour h on h.agent_id = a.agent_id
  left join agent_ledger l on l.agent_id = a.agent_id and l.skill = '' and l.task_type = ''
  cross join lateral (
    select
      least(100, greatest(0,
        50 + coalesce(50 * h.completed / nullif(h.ended, 0), 0) - case when h.mean_seconds > 300 then 10 else 0 end
      )) as hourly,
      agentorch_score(coalesce(l.rights, 0), coalesce(l.trials, 0)) as score
  ) w
  where (a.performance_hourly, a.performance_score) is distinct from (w.hourly, w.score)
  order by a.agent_id
  for no key update of a skip locked
),
reckoned as (
  update agent_registry a
  set performance_hourly = s.hourly, performance_score = s.score
  from stale s
  where a.agent_id = s.agent_id
)
select count(*) as active from hour;


-- name: trim_ledger
-- No agent keeps more than $1 rows beside the one for everything: those written longest ago go, and
-- those of agents that are not registered any more. Rows are named by their place, so that no plan
-- compares each of them with each, whatever the planner believes of a table that was empty a moment ago.
with crowded as (
  select agent_id from agent_ledger group by agent_id having count(*) > $1 + 1
),
ranked as (
  select l.ctid as row,
    row_number() over (partition by l.agent_id order by l.updated_at desc, l.skill, l.task_type) as place
  from agent_ledger l
  where l.skill <> '' and l.agent_id = any(array(select agent_id from crowded))
),
unwanted as (
  select row from ranked where place > $1
  union
  select l.ctid from agent_ledger l
  where not exists (select from agent_registry a where a.agent_id = l.agent_id)
),
doomed as (
  select l.ctid as row from agent_ledger l
  where l.ctid = any(array(select row from unwanted))
  for update skip locked
)
delete from agent_ledger where ctid = any(array(select row from doomed));


-- name: score_agents
-- `performance_score` of these agents as their evidence is now; rows that somebody holds are left out.
with held as (
  select agent_id from agent_registry where agent_id = any($1::text[])
  order by agent_id
  for no key update skip locked
)
update agent_registry a
set performance_score = agentorch_score(l.rights, l.trials)
from held h
join agent_ledger l on l.agent_id = h.agent_id and l.skill = '' and l.task_type = ''
where a.agent_id = h.agent_id;


-- name: ledger
-- The evidence of every row, as much of it as is left now. $1 is the half-life in seconds.
select agent_id, skill, task_type, rights * agentorch_left(updated_at, $1) as rights,
  trials * agentorch_left(updated_at, $1) as trials, now() as now
from agent_ledger;


-- name: ledger_since
-- The same, of rows that were written after $2.
select agent_id, skill, task_type, rights * agentorch_left(updated_at, $1) as rights,
  trials * agentorch_left(updated_at, $1) as trials, now() as now
from agent_ledger
where updated_at > $2::timestamptz;


-- name: durations_of_types
-- How long completed attempts of these types took, whoever made them: counts by bucket of `core.ledger`.
select l.task_type, (one.number - 1)::integer as bucket, sum(one.attempts) as attempts
from agent_ledger l, unnest(l.latency) with ordinality as one (attempts, number)
where l.task_type = any($1) and l.skill <> '' and one.attempts > 0
group by l.task_type, one.number;


-- name: show_ledger
-- All rows of one agent, as much of them as is left now: everything it did first, then what it did last.
select
  skill, task_type, completed * f.share as completed, failed * f.share as failed, lost * f.share as lost,
  cost_usd * f.share as cost_usd, tokens * f.share as tokens, cost_unknown * f.share as cost_unknown,
  tokens_unknown * f.share as tokens_unknown, latency, rights * f.share as rights, trials * f.share as trials,
  updated_at
from agent_ledger
cross join lateral (select agentorch_left(updated_at, $2) as share) f
where agent_id = $1
order by skill <> '', updated_at desc, skill, task_type;


-- name: show_trend
-- What one agent finished in the last hour, by pieces of five minutes; 0 is the newest piece.
select
  floor(extract(epoch from date_trunc('minute', now()) - m.minute) / 300)::integer as piece,
  sum(m.completed) as completed, sum(m.failed) as failed, sum(m.lost) as lost, sum(m.seconds) as seconds
from generate_series(
  date_trunc('minute', now()) - interval '59 minutes', date_trunc('minute', now()), interval '1 minute'
) as g (minute)
join agent_minutes m on m.minute = g.minute and m.agent_id = $1
group by piece;
