-- Budgets: what tasks, submissions and labels may use, and what is reserved for each attempt.
--
-- Reservations are made by the transaction that assigns. They are settled by a trigger on the
-- attempt itself, so that no way in which an attempt can end is able to forget them. Attempts that
-- are on no budget have is_funded = false, and cost nothing.
--
-- Lock order: task_distributions, task_attempts, then budgets by (scope, key), then attempt_funding,
-- usage_seen, spend.

create table budgets (
  scope            text not null check (scope in ('task', 'submission', 'label')),
  -- the id of the task or of the submission, or name=value of a label
  key              text not null check (length(key) between 1 and 500),
  -- the limits; null = this unit has none
  cost_usd         numeric(38, 9) check (cost_usd > 0),
  tokens           numeric(38, 0) check (tokens > 0),
  -- what one attempt is expected to use, where a person said so
  attempt_usd      numeric(38, 9) check (attempt_usd > 0),
  attempt_tokens   numeric(38, 0) check (attempt_tokens > 0),
  spent_usd        numeric(38, 9) not null default 0 check (spent_usd >= 0),
  spent_tokens     numeric(38, 0) not null default 0 check (spent_tokens >= 0),
  -- for attempts that run
  reserved_usd     numeric(38, 9) not null default 0 check (reserved_usd >= 0),
  reserved_tokens  numeric(38, 0) not null default 0 check (reserved_tokens >= 0),
  -- the part of what is spent that nobody told: what had been reserved counts as used
  unknown_usd      numeric(38, 9) not null default 0 check (unknown_usd >= 0),
  unknown_tokens   numeric(38, 0) not null default 0 check (unknown_tokens >= 0),
  unknown_attempts integer not null default 0 check (unknown_attempts >= 0),
  -- how often what is spent begins anew, at midnight UTC; null = never
  period           text check (period in ('day', 'week', 'month')),
  window_start     timestamptz not null default now(),
  created_at       timestamptz not null default now(),
  updated_at       timestamptz not null default now(),
  primary key (scope, key),
  constraint budget_limits_something check (cost_usd is not null or tokens is not null),
  constraint budget_of_label_has_period check (period is null or scope = 'label')
);

alter table budgets set (fillfactor = 70);

-- Since when a budget counts, at a moment.
create function agentorch_window(period text, window_start timestamptz, at timestamptz)
returns timestamptz language sql immutable as $$
  select case when period is null then window_start
    else greatest(window_start, date_trunc(period, at at time zone 'UTC') at time zone 'UTC') end
$$;

-- The budgets that a task may be charged to; those that are not there limit nothing.
create function agentorch_budget_keys(task_id text, options jsonb)
returns table (scope text, key text) language sql immutable as $$
  select 'task', task_id where options ? 'budget'
  union all
  select 'submission', options ->> 'funded_by' where options ? 'funded_by'
  union all
  select 'label', l.key || '=' || l.value from jsonb_each_text(options -> 'labels') l
$$;

alter table task_attempts add column is_funded boolean not null default false;

-- What was reserved for an attempt on each of its budgets, and what it was charged.
create table attempt_funding (
  message_id      uuid not null,
  scope           text not null,
  key             text not null,
  -- what was reserved when it began; null = this unit has no limit
  granted_usd     numeric(38, 9) check (granted_usd >= 0),
  granted_tokens  numeric(38, 0) check (granted_tokens >= 0),
  -- what is reserved now: less where a sub-task uses some of it, 0 once it has ended
  held_usd        numeric(38, 9) not null default 0 check (held_usd >= 0),
  held_tokens     numeric(38, 0) not null default 0 check (held_tokens >= 0),
  -- the attempt whose reservation this is a part of
  lender          uuid,
  borrowed_usd    numeric(38, 9) not null default 0 check (borrowed_usd >= 0),
  borrowed_tokens numeric(38, 0) not null default 0 check (borrowed_tokens >= 0),
  charged_usd     numeric(38, 9) check (charged_usd >= 0),
  charged_tokens  numeric(38, 0) check (charged_tokens >= 0),
  -- the part of the charge that nobody told
  unknown_usd     numeric(38, 9) not null default 0 check (unknown_usd >= 0),
  unknown_tokens  numeric(38, 0) not null default 0 check (unknown_tokens >= 0),
  is_unknown      boolean not null default false,
  settled_at      timestamptz,
  primary key (message_id, scope, key),
  foreign key (scope, key) references budgets on delete cascade,
  constraint funding_settled_holds_nothing check (settled_at is null or (held_usd = 0 and held_tokens = 0)),
  constraint funding_unknown_is_settled check (not is_unknown or settled_at is not null)
);
create index funding_of_budget on attempt_funding (scope, key);
create index funding_unknown on attempt_funding (settled_at) where is_unknown;

-- What attempts of each type said that they used, newest first: the last 20.
create table usage_seen (
  task_type text primary key,
  usd       numeric[] not null default '{}',
  tokens    numeric[] not null default '{}'
);

-- What all attempts said that they used, by day (UTC). Several rows a day, so that transactions
-- do not wait for each other: each adds to the row of its own connection.
create table spend (
  day             date not null,
  shard           smallint not null,
  usd             numeric(38, 9) not null default 0,
  tokens          numeric(38, 0) not null default 0,
  usd_attempts    bigint not null default 0,
  tokens_attempts bigint not null default 0,
  primary key (day, shard)
);

-- Usage as the agent told it, in exact numbers; null where it told none.
create function agentorch_told_usd(usage jsonb) returns numeric language sql immutable as $$
  select case when jsonb_typeof(usage -> 'cost_usd') = 'number' then round((usage ->> 'cost_usd')::numeric, 9) end
$$;
create function agentorch_told_tokens(usage jsonb) returns numeric language sql immutable as $$
  select case
    when jsonb_typeof(usage -> 'input_tokens') = 'number' or jsonb_typeof(usage -> 'output_tokens') = 'number'
    then coalesce((usage ->> 'input_tokens')::numeric, 0) + coalesce((usage ->> 'output_tokens')::numeric, 0) end
$$;

create function agentorch_note_spend() returns trigger language plpgsql as $$
declare
  usd numeric := agentorch_told_usd(new.usage);
  tokens numeric := agentorch_told_tokens(new.usage);
begin
  insert into spend as s (day, shard, usd, tokens, usd_attempts, tokens_attempts)
  values (
    (now() at time zone 'UTC')::date, pg_backend_pid() % 8, coalesce(usd, 0), coalesce(tokens, 0),
    (usd is not null)::integer, (tokens is not null)::integer)
  on conflict (day, shard) do update set
    usd = s.usd + excluded.usd, tokens = s.tokens + excluded.tokens,
    usd_attempts = s.usd_attempts + excluded.usd_attempts,
    tokens_attempts = s.tokens_attempts + excluded.tokens_attempts;
  return null;
end $$;

-- Usage is told once for each attempt.
create trigger attempt_spend
  after update of usage on task_attempts for each row
  when (old.usage is null and new.usage is not null)
  execute function agentorch_note_spend();

-- An attempt has ended, or has told what it used after it ended: what it used takes the place of
-- what was reserved. What counts:
--   told              that
--   lost, never taken, given back   nothing: it is returned
--   ended untold      what was reserved, as unknown
create function agentorch_settle_funding() returns trigger language plpgsql as $$
declare
  told_usd numeric := agentorch_told_usd(new.usage);
  told_tokens numeric := agentorch_told_tokens(new.usage);
  is_returned boolean := new.status = 'lost'
    or (new.status = 'cancelled' and (old.accepted_at is null or coalesce(new.error ->> 'code' = 'returned', false)));
  one record;
  b budgets%rowtype;
  f attempt_funding%rowtype;
  begins timestamptz;
  counted boolean;
  charge_usd numeric;
  charge_tokens numeric;
  guess_usd numeric;
  guess_tokens numeric;
  back_usd numeric;
  back_tokens numeric;
  untold boolean;
begin
  for one in
    select scope, key from attempt_funding where message_id = new.message_id order by scope, key
  loop
    -- the budget is locked first, and then its reservations are read
    select * into b from budgets where scope = one.scope and key = one.key for update;
    continue when not found;
    select * into f from attempt_funding
    where message_id = new.message_id and scope = one.scope and key = one.key;
    continue when not found;

    begins := agentorch_window(b.period, b.window_start, now());
    if begins > b.window_start then
      b.spent_usd := 0; b.spent_tokens := 0;
      b.unknown_usd := 0; b.unknown_tokens := 0; b.unknown_attempts := 0;
    end if;
    counted := f.settled_at is not null and f.settled_at >= begins;

    untold := not is_returned
      and ((f.granted_usd is not null and told_usd is null) or (f.granted_tokens is not null and told_tokens is null));
    guess_usd := case when is_returned then 0 when f.settled_at is null then f.held_usd
      when f.is_unknown then f.unknown_usd else coalesce(f.granted_usd, 0) end;
    guess_tokens := case when is_returned then 0 when f.settled_at is null then f.held_tokens
      when f.is_unknown then f.unknown_tokens else coalesce(f.granted_tokens, 0) end;
    charge_usd := case when f.granted_usd is not null then coalesce(told_usd, guess_usd) end;
    charge_tokens := case when f.granted_tokens is not null then coalesce(told_tokens, guess_tokens) end;
    guess_usd := case when told_usd is null then coalesce(charge_usd, 0) else 0 end;
    guess_tokens := case when told_tokens is null then coalesce(charge_tokens, 0) else 0 end;

    -- what a sub-task did not use of what it took from its parent goes back, while the parent runs
    back_usd := 0; back_tokens := 0;
    if f.settled_at is null and f.lender is not null then
      back_usd := least(f.borrowed_usd, greatest(0, f.held_usd - coalesce(charge_usd, 0)));
      back_tokens := least(f.borrowed_tokens, greatest(0, f.held_tokens - coalesce(charge_tokens, 0)));
      update attempt_funding
      set held_usd = held_usd + back_usd, held_tokens = held_tokens + back_tokens
      where message_id = f.lender and scope = f.scope and key = f.key and settled_at is null;
      if not found then
        back_usd := 0; back_tokens := 0;
      end if;
    end if;

    update budgets
    set
      spent_usd = b.spent_usd + coalesce(charge_usd, 0) - case when counted then coalesce(f.charged_usd, 0) else 0 end,
      spent_tokens = b.spent_tokens + coalesce(charge_tokens, 0)
        - case when counted then coalesce(f.charged_tokens, 0) else 0 end,
      reserved_usd = b.reserved_usd - f.held_usd + back_usd,
      reserved_tokens = b.reserved_tokens - f.held_tokens + back_tokens,
      unknown_usd = b.unknown_usd + guess_usd - case when counted then f.unknown_usd else 0 end,
      unknown_tokens = b.unknown_tokens + guess_tokens - case when counted then f.unknown_tokens else 0 end,
      unknown_attempts = b.unknown_attempts + untold::integer - (counted and f.is_unknown)::integer,
      window_start = begins, updated_at = now()
    where scope = b.scope and key = b.key
    returning * into b;

    update attempt_funding
    set
      held_usd = 0, held_tokens = 0, charged_usd = charge_usd, charged_tokens = charge_tokens,
      unknown_usd = guess_usd, unknown_tokens = guess_tokens, is_unknown = untold,
      settled_at = greatest(now(), begins)
    where message_id = f.message_id and scope = f.scope and key = f.key;

    insert into events (kind, task_id, agent_id, message_id, node_id, data)
    values (
      case when is_returned and told_usd is null and told_tokens is null then 'budget_returned'
        else 'budget_settled' end,
      new.task_id, new.agent_id, new.message_id, new.node_id,
      json_strip_nulls(json_build_object(
        'scope', f.scope, 'key', f.key,
        'cost_usd', trim_scale(charge_usd), 'tokens', charge_tokens, 'is_unknown', case when untold then true end,
        'limit_usd', trim_scale(b.cost_usd),
        'spent_usd', case when b.cost_usd is not null then trim_scale(b.spent_usd) end,
        'reserved_usd', case when b.cost_usd is not null then trim_scale(b.reserved_usd) end,
        'limit_tokens', b.tokens,
        'spent_tokens', case when b.tokens is not null then b.spent_tokens end,
        'reserved_tokens', case when b.tokens is not null then b.reserved_tokens end)));
    perform pg_notify('agentorch_budgets', f.scope || ' ' || f.key);
  end loop;

  if told_usd is not null or told_tokens is not null then
    insert into usage_seen as u (task_type, usd, tokens)
    select
      t.task_type, array_remove(array[told_usd], null), array_remove(array[told_tokens], null)
    from task_distributions t where t.task_id = new.task_id
    on conflict (task_type) do update set
      usd = (excluded.usd || u.usd)[1:20], tokens = (excluded.tokens || u.tokens)[1:20];
  end if;
  return null;
end $$;

create trigger attempt_funding_settled
  after update of status, usage on task_attempts for each row
  when (new.is_funded and new.status not in ('sent', 'accepted')
        and (new.status is distinct from old.status or new.usage is distinct from old.usage))
  execute function agentorch_settle_funding();
