-- 23 of everything that can be listed, for tests of filters, orders and pages.

insert into task_distributions (
  task_id, name, task_type, status, priority, options, submission_id, created_at, started_at, completed_at,
  attempts_made, assigned_agents, required_capabilities)
select
  'task ' || n,
  case when n % 3 > 0 then 'name:' || n % 5 end,
  'type ' || n % 2,
  case n % 4 when 0 then 'failed' when 1 then 'pending' when 2 then 'completed' else 'cancelled' end,
  n % 11,
  case when n % 2 = 0 then '{"labels": {"team": "ml", "n": "even"}}'::jsonb else '{}' end,
  ('00000000-0000-7000-8000-00000000000' || n % 3)::uuid,
  now() - n * interval '1 hour',
  case when n % 4 <> 1 then now() - n % 6 * interval '1 minute' end,
  case when n % 4 <> 1 then now() end,
  n % 4,
  case when n % 5 = 0 then array['anna'] else '{}' end,
  case when n % 5 > 2 then array['a', 'b'] else '{}' end
from generate_series(1, 23) n;

insert into agent_registry (
  agent_id, agent_type, capabilities, status, metadata, created_at, last_heartbeat, completed)
select
  'agent ' || n || ':ä',
  'type ' || n % 2,
  case when n % 2 = 0 then array['a', 'b'] else array['a'] end,
  case when n % 3 = 0 then 'paused' else 'offline' end,
  json_build_object('room', n % 2)::jsonb,
  now() - n * interval '1 hour',
  case when n % 4 > 0 then now() - n % 4 * interval '1 second' end,
  n % 3
from generate_series(1, 23) n;

insert into consensus_decisions (
  decision_id, topic, participating_agents, rule, electorate, status, consensus_reached, confidence, votes_used,
  created_at, decided_at, capability, task_id)
select
  gen_random_uuid(),
  'topic',
  array['anna', 'b' || n % 2],
  'majority',
  3,
  case n % 3 when 0 then 'pending' when 1 then 'reached' else 'failed' end,
  n % 3 = 1,
  case when n % 3 > 0 then n % 7 / 10.0 end,
  n % 4,
  now() - n % 8 * interval '1 hour',
  case when n % 3 > 0 then now() end,
  case when n % 2 = 0 then 'check' end,
  case when n % 2 = 0 then 'task ' || n end
from generate_series(1, 23) n;

insert into deadlocks (
  deadlock_id, kind, mark, members, reason, waited_s, resolution, detected_at, resolved_at)
select
  gen_random_uuid(),
  case when n % 2 = 0 then 'hold_and_wait' else 'timeout' end,
  'mark ' || n,
  array['task ' || n, 'task 1'],
  'because',
  n % 5 / 3.0,
  case when n % 2 = 0 then 'parked' end,
  now() - n % 8 * interval '1 hour',
  case when n % 2 = 0 then now() end
from generate_series(1, 23) n;

insert into schedules (name, cron, tasks, is_paused, next_at, error, retry_at, created_at)
select
  'schedule ' || n,
  '@hourly',
  '[]',
  n % 4 = 0,
  case when n % 4 <> 1 then now() + n % 3 * interval '1 hour' end,
  case when n % 4 = 2 then 'it is broken' end,
  case when n % 4 = 2 then now() end,
  now() - n * interval '1 hour'
from generate_series(1, 23) n;
