-- Votes, their ballots, what became of them, and how often who is right.
-- Lock order: task_distributions, then consensus_decisions, then agent_reliability by agent.


-- name: open_decision
-- A vote opens: who may vote and how it is counted stand from here on. If it was opened before,
-- what was frozen then is answered.
with opened as (
  insert into consensus_decisions (
    decision_id, task_id, topic, rule, threshold, electorate, needed, status, options, participating_agents,
    capability, voters)
  values ($1, $2, $3, $4, $5, $6, $7, 'pending', $8::jsonb, $9, $10, $11::json)
  on conflict (task_id) where task_id is not null
  do update set topic = excluded.topic
  returning decision_id, participating_agents, xmax = 0 as is_new
),
logged as (
  insert into events (kind, task_id, node_id, data)
  select 'consensus_opened', $2, $12,
    json_build_object('decision_id', decision_id, 'rule', $4::text, 'voters', participating_agents)
  from opened where is_new
)
select participating_agents, is_new from opened;


-- name: electorates
-- The frozen voters of votes that are open, best first, and who is asked where they did not agree.
select
  d.task_id, d.stage, d.brief, d.options ->> 'judge' as judge,
  array(select v from unnest(d.participating_agents) with ordinality as u (v, n)
        where not v = any(d.lost_agents) order by n) as voters
from consensus_decisions d
where d.task_id = any($1::text[]) and d.status = 'pending';


-- name: lock_election
-- One open vote, under lock.
select
  decision_id, task_id, stage, voters, lost_agents, options::text as options, compared, escalation, capability,
  created_at
from consensus_decisions
where task_id = $1 and status = 'pending'
for update;


-- name: decision_of
-- The id of a task's vote, open or closed.
select decision_id, status, participating_agents from consensus_decisions where task_id = $1;


-- name: absent_voters
-- Voters of open votes that are wanted now and have been gone for longer than the grace ($1 seconds),
-- where fewer than are wanted could still be asked from node $3, which leads. Votes in other hands (a judge's) are left alone.
select d.task_id, array_agg(v.agent_id order by v.agent_id) filter (where v.is_gone) as gone
from consensus_decisions d
join task_distributions t on t.task_id = d.task_id
cross join lateral (
  select u.agent_id,
    a.agent_id is null
      or ((a.status <> 'online' or a.node_id <> $3)
          and coalesce(a.disconnected_at, a.updated_at) < now() - $1 * interval '1 second') as is_gone,
    coalesce(a.status = 'online' and a.node_id = $3, false) as is_here
  from unnest(d.participating_agents) as u (agent_id)
  left join agent_registry a on a.agent_id = u.agent_id
  where not u.agent_id = any(t.assigned_agents) and not u.agent_id = any(d.lost_agents)
) v
where d.status = 'pending' and d.stage = 'vote' and t.wanted > 0 and t.status in ('pending', 'running')
group by d.task_id, t.wanted
having count(*) filter (where v.is_here) < t.wanted and count(*) filter (where v.is_gone) > 0
limit $2;


-- name: lose_voters
-- These voters will not be asked any more.
update consensus_decisions
set lost_agents = lost_agents || $2::text[]
where decision_id = $1;


-- name: widen_electorate
-- No agreement: more agents get a vote.
update consensus_decisions
set participating_agents = participating_agents || $2::text[], voters = $3::json, electorate = $4, escalation = $5::json
where decision_id = $1;


-- name: call_judge
-- No agreement: somebody else decides, and is told how many gave which answer.
update consensus_decisions set stage = 'judge', brief = $2::json, escalation = $3::json where decision_id = $1;


-- name: idle_votes
-- Open votes that nobody works on and that ask for nobody: something was lost between two steps.
select d.task_id
from consensus_decisions d
join task_distributions t on t.task_id = d.task_id
where d.status = 'pending' and t.wanted = 0 and t.status in ('pending', 'running')
  and not exists (
    select 1 from task_attempts a where a.task_id = t.task_id and a.status in ('sent', 'accepted'))
  and not exists (
    select 1 from task_distributions c
    where c.parent_id = t.task_id and c.task_type = 'compare' and c.status in ('blocked', 'pending', 'running'))
limit $1;


-- name: open_election
-- The comparisons that are known of an open vote.
select compared from consensus_decisions where decision_id = $1 and status = 'pending' for update;


-- name: note_compared
-- What a comparer said about pairs of answers.
update consensus_decisions set compared = $2::json where decision_id = $1 and status = 'pending' returning task_id;


-- name: lock_decision
-- One vote, open or closed, under lock.
select
  decision_id, task_id, topic, status, question, options::text as options, voters, lost_agents, deadline, rule,
  answer, participating_agents, capability, compared, raw_confidence, raw_basis, votes_used, decided_by, decided_at,
  final_decision, consensus_reached, deadline < now() as is_overdue
from consensus_decisions
where decision_id = $1::uuid or task_id = $2
for update;


-- name: cast_ballots
-- Ballots, each once. One that counts as lost may still be filled: while the vote is open it counts
-- then, afterwards it is only kept.
with cast_now as (
  insert into consensus_ballots as b (
    decision_id, agent_id, status, vote, answer, choices, confidence, seconds, message_id)
  select $1, agent_id, status, vote::json, answer, choices::text[], confidence, seconds, message_id
  from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::float8[], $9::uuid[])
    as i (agent_id, status, vote, answer, choices, confidence, seconds, message_id)
  on conflict (decision_id, agent_id) do update set
    status = case when excluded.status = 'late' then b.status else excluded.status end,
    vote = excluded.vote, answer = excluded.answer, choices = excluded.choices,
    confidence = excluded.confidence, seconds = excluded.seconds, message_id = excluded.message_id, cast_at = now()
  where b.status = 'lost' and b.vote is null and excluded.status <> 'lost'
  returning b.agent_id, b.status, b.message_id
),
logged as (
  insert into events (kind, task_id, agent_id, message_id, node_id, data)
  select 'ballot_cast', $10, agent_id, message_id, $11,
    json_build_object('decision_id', $1::uuid, 'status', status)
  from cast_now
)
select agent_id, status from cast_now;


-- name: show_ballots
-- The ballots of votes.
select
  decision_id::text as decision_id, agent_id, status, vote, answer, choices, confidence, seconds, weight,
  message_id::text as message_id, cast_at, is_verified
from consensus_ballots
where decision_id = any($1::uuid[])
order by decision_id, agent_id;


-- name: close_decision
-- A vote is decided, with everything that made it.
with closed as (
  update consensus_decisions
  set
    status = $2, consensus_reached = ($2 = 'reached'), final_decision = $3::json, votes = $4::json, needed = $5,
    votes_used = $6, votes_not_asked = $7, margin = $8, confidence = $9, confidence_basis = $10, decided_by = $11,
    dissent = $12::json, decided_at = now(), electorate = $13, answer = $14, raw_confidence = $15, raw_basis = $16,
    escalation = coalesce($17::json, escalation), closed_by = $18
  where decision_id = $1 and status = 'pending'
  returning decision_id, task_id
),
logged as (
  insert into events (kind, task_id, node_id, data)
  select 'consensus_decided', task_id, $19,
    json_build_object('decision_id', decision_id, 'status', $2::text, 'decided_by', $11::text, 'confidence', $9::float8)
  from closed
)
select decision_id from closed;


-- name: weigh_ballots
-- What each ballot weighed, and what it earned its agent.
update consensus_ballots b
set weight = i.weight, credit_successes = i.successes, credit_trials = i.trials
from unnest($2::text[], $3::float8[], $4::float8[], $5::float8[]) as i (agent_id, weight, successes, trials)
where b.decision_id = $1 and b.agent_id = i.agent_id;


-- name: credit_agents
-- Credit by agreement, in the order of the agents.
insert into agent_reliability as r (agent_id, capability, successes, trials)
select agent_id, $1, successes, trials
from unnest($2::text[], $3::float8[], $4::float8[]) as i (agent_id, successes, trials)
order by agent_id
on conflict (agent_id, capability) do update set
  successes = greatest(0, r.successes + excluded.successes),
  trials = greatest(0, r.trials + excluded.trials), updated_at = now();


-- name: reliabilities
-- What is known of agents in one capability, and how many outcomes of it are verified.
select
  i.agent_id, coalesce(r.successes + r.verified_successes, 0) as successes,
  coalesce(r.trials + r.verified_trials, 0) as trials, r.inferred,
  (select count(*) from task_outcomes o where o.capability = $1) as verified
from unnest($2::text[]) as i (agent_id)
left join agent_reliability r on r.agent_id = i.agent_id and r.capability = $1;


-- name: show_reliabilities
-- How often agents are right, by capability.
select agent_id, capability, successes, trials, verified_successes, verified_trials, inferred
from agent_reliability
where ($1::text is null or agent_id = $1) and ($2::text is null or capability = $2)
order by capability, agent_id;


-- name: calibration
-- The map of one capability, for one kind of confidence.
select outcomes, centre, scale, weights from consensus_calibration where capability = $1 and basis = $2;


-- name: store_calibration
-- A fitted map replaces the one before.
insert into consensus_calibration (capability, basis, outcomes, centre, scale, weights)
values ($1, $2, $3, $4, $5, $6)
on conflict (capability, basis) do update set
  outcomes = excluded.outcomes, centre = excluded.centre, scale = excluded.scale, weights = excluded.weights,
  fitted_at = now();


-- name: known_outcomes
-- What a calibration is fitted to: the newest verified votes of a capability.
select raw_confidence, votes_used, leader_right
from task_outcomes
where capability = $1 and raw_basis = $2 and leader_right is not null and votes_used > 0
order by at desc
limit 2000;


-- name: task_for_outcome
-- A task whose outcome somebody knows.
select task_id, status, required_capabilities, assigned_agents, result, options::text as options, priority
from task_distributions where task_id = $1;


-- name: author_of
-- Who brought the result of a task without a vote.
select agent_id from task_attempts where task_id = $1 and status = 'completed' order by attempt desc limit 1;


-- name: answers_of
-- Who gave which answer in a vote, and what that earned so far.
select agent_id, answer, credit_successes, credit_trials, is_verified
from consensus_ballots where decision_id = $1 and status = 'answered'
order by agent_id
for update;


-- name: store_outcome
-- What is known to be true of a task; a later word replaces an earlier one.
insert into task_outcomes (
  task_id, decision_id, capability, is_right, answer, source, said_by, leader_right, raw_confidence, raw_basis,
  votes_used)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
on conflict (task_id) do update set
  is_right = excluded.is_right, answer = excluded.answer, source = excluded.source, said_by = excluded.said_by,
  leader_right = excluded.leader_right, at = now();


-- name: earlier_outcome
-- Whether a task's outcome was known before, and what it credited to a lone author.
select is_right from task_outcomes where task_id = $1 for update;


-- name: verify_ballots
-- A verified outcome takes the place of what the ballots had earned by agreement.
update consensus_ballots b
set credit_successes = i.successes, credit_trials = i.trials, is_verified = i.is_verified
from unnest($2::text[], $3::float8[], $4::float8[], $5::boolean[]) as i (agent_id, successes, trials, is_verified)
where b.decision_id = $1 and b.agent_id = i.agent_id;


-- name: know_agents
-- A row for each agent, in the order of the agents, so that changes have something to lock.
insert into agent_reliability (agent_id, capability)
select agent_id, $1 from unnest($2::text[]) as i (agent_id)
order by agent_id
on conflict do nothing;


-- name: verify_agents
-- Changes of credit: by agreement ($3, $4), and verified ($5, $6).
update agent_reliability r
set
  successes = greatest(0, r.successes + i.successes), trials = greatest(0, r.trials + i.trials),
  verified_successes = greatest(0, r.verified_successes + i.verified_successes),
  verified_trials = greatest(0, r.verified_trials + i.verified_trials), updated_at = now()
from unnest($2::text[], $3::float8[], $4::float8[], $5::float8[], $6::float8[])
  as i (agent_id, successes, trials, verified_successes, verified_trials)
where r.agent_id = i.agent_id and r.capability = $1;


-- name: show_decisions
-- Votes, newest first.
select
  decision_id::text as decision_id, task_id, topic, status, consensus_reached, rule, threshold, electorate, needed,
  final_decision, votes, votes_used, votes_not_asked, margin, confidence, confidence_basis, decided_by, dissent,
  created_at, decided_at, question, options::text as options, participating_agents, capability, voters, lost_agents,
  escalation, compared, stage, answer, raw_confidence, deadline, opened_by, closed_by,
  (select o.is_right from task_outcomes o where o.task_id = d.task_id) as verified,
  (select t.name from task_distributions t where t.task_id = d.task_id) as task_name, null::text /*cursor*/ as place
from consensus_decisions d
where ($1::text is null or task_id = $1) and ($2::text is null or decision_id::text = $2)
  and true /*filter*/
order by d.created_at desc /*order*/
limit $3;


-- name: open_proposal
-- A question stands for a vote of its own.
with opened as (
  insert into consensus_decisions (
    decision_id, topic, question, options, participating_agents, rule, threshold, electorate, needed, status,
    capability, voters, deadline, opened_by)
  values ($1, $2, $3::json, $4::jsonb, $5, $6, $7, $8, $9, 'pending', $10, $11::json,
          coalesce($12::timestamptz, now() + $13::float8 * interval '1 second'), $14)
  returning decision_id
),
logged as (
  insert into events (kind, node_id, data)
  select 'consensus_opened', $15, json_build_object('decision_id', decision_id, 'topic', $2::text, 'rule', $6::text)
  from opened
),
hinted as (
  select pg_notify('agentorch_votes', decision_id::text) from opened
)
select decision_id from opened, hinted;


-- name: open_proposals
-- Proposals that wait for ballots of these agents, or one of them.
select decision_id::text as decision_id, topic, question, options::text as options, deadline,
  array(select v from unnest(d.participating_agents) as u (v)
        where v = any($1::text[])
          and not exists (select 1 from consensus_ballots b where b.decision_id = d.decision_id and b.agent_id = v)
  ) as unheard
from consensus_decisions d
where task_id is null and status = 'pending' and participating_agents && $1::text[]
  and ($2::text is null or decision_id::text = $2)
order by created_at;


-- name: overdue_proposals
-- Proposals whose deadline has passed.
select decision_id::text as decision_id from consensus_decisions
where task_id is null and status = 'pending' and deadline < now()
limit $1;


-- name: history_ballots
-- The ballots of closed votes of tasks, oldest vote first.
select d.task_id as task, b.agent_id as worker, coalesce(b.answer, '') as label
from consensus_decisions d
join consensus_ballots b on b.decision_id = d.decision_id
where d.task_id is not null and d.status <> 'pending' and b.status in ('answered', 'abstained', 'late')
  and ($1::text is null or d.capability = $1)
order by d.created_at, d.decision_id, b.cast_at, b.agent_id;


-- name: history_electorates
-- Who had a vote in them, without those who were lost: these lowered the electorate.
select d.task_id as task, array(
  select v ->> 'agent_id' from json_array_elements(d.voters) v
  where v ->> 'agent_id' <> all (d.lost_agents) and not exists (
    select from consensus_ballots b
    where b.decision_id = d.decision_id and b.agent_id = v ->> 'agent_id' and b.status = 'lost')
) as voters
from consensus_decisions d
where d.task_id is not null and d.status <> 'pending' and ($1::text is null or d.capability = $1);


-- name: history_truth
-- What is known to be true of them.
select o.task_id as task, coalesce(o.answer, d.answer) as truth
from task_outcomes o
join consensus_decisions d on d.task_id = o.task_id
where (o.answer is not null or o.leader_right) and ($1::text is null or d.capability = $1);


-- name: inferable
-- Capabilities with enough closed votes to infer from, and how many are verified.
select d.capability, count(*) as tasks, count(o.task_id) as verified, i.tasks as seen_tasks, i.verified as seen_verified
from consensus_decisions d
left join task_outcomes o on o.task_id = d.task_id
left join consensus_inference i on i.capability = d.capability
where d.task_id is not null and d.status <> 'pending' and d.capability is not null
group by d.capability, i.tasks, i.verified
having count(*) >= $1 and count(o.task_id) >= $2;


-- name: decided_answers
-- What the votes of a capability decided by themselves.
select task_id, answer from consensus_decisions
where capability = $1 and task_id is not null and status <> 'pending' and answer is not null;


-- name: store_inference
-- What the background job found.
insert into consensus_inference (capability, tasks, verified, inferred_right, decided_right, is_used)
values ($1, $2, $3, $4, $5, $6)
on conflict (capability) do update set
  tasks = excluded.tasks, verified = excluded.verified, inferred_right = excluded.inferred_right,
  decided_right = excluded.decided_right, is_used = excluded.is_used, fitted_at = now();


-- name: use_inference
-- Inferred reliabilities take the place of the simple ones, or ($2 empty) leave it.
with forgotten as (
  update agent_reliability set inferred = null
  where capability = $1 and inferred is not null and not agent_id = any($2::text[])
)
insert into agent_reliability (agent_id, capability, inferred)
select agent_id, $1, inferred from unnest($2::text[], $3::float8[]) as i (agent_id, inferred)
order by agent_id
on conflict (agent_id, capability) do update set inferred = excluded.inferred, updated_at = now();
