-- Tokens: who may do what from afar.


-- name: create_token
-- Keep a new token's hash; $5 is its life in seconds, null for one without an end.
with stored as (
  insert into tokens (token_id, name, hash, scopes, expires_at)
  values ($1, $2, $3, $4, now() + $5::float8 * interval '1 second')
  returning token_id, name, scopes, created_at, expires_at, last_used_at, revoked_at
),
logged as (
  insert into events (kind, node_id, data)
  select 'token_created', $6, json_build_object('token_id', token_id, 'name', name, 'scopes', scopes) from stored
)
select token_id, name, scopes, created_at, expires_at, last_used_at, revoked_at, false as is_expired from stored;


-- name: show_tokens
-- All tokens, oldest first; those that have ended only where they are asked for.
select
  token_id, name, scopes, created_at, expires_at, last_used_at, revoked_at,
  coalesce(expires_at <= now(), false) as is_expired
from tokens
where $1 or (revoked_at is null and (expires_at is null or expires_at > now()))
order by created_at, token_id;


-- name: find_token
-- The living token of this hash, and how long it lives.
select token_id, name, scopes, extract(epoch from expires_at - now())::float8 as seconds_left
from tokens
where hash = $1 and revoked_at is null and (expires_at is null or expires_at > now());


-- name: living_tokens
-- Which of these tokens are still good.
select token_id from tokens
where token_id = any($1::text[]) and revoked_at is null and (expires_at is null or expires_at > now());


-- name: has_token
-- Whether anybody could come in with a token.
select exists (
  select from tokens where revoked_at is null and (expires_at is null or expires_at > now())
) as has_token;


-- name: revoke_tokens
-- End tokens, by id or by name; every node hears of it and closes what they opened.
with gone as (
  update tokens set revoked_at = now()
  where revoked_at is null and (token_id = any($1::text[]) or name = any($1::text[]))
  returning token_id, name
),
logged as (
  insert into events (kind, node_id, data)
  select 'token_revoked', $2, json_build_object('token_id', token_id, 'name', name) from gone
),
told as (
  select pg_notify('agentorch_tokens', string_agg(token_id, E'\n')) from gone having count(*) between 1 and 300
),
told_all as (
  select pg_notify('agentorch_tokens', '*') from gone having count(*) > 300
)
select token_id, name from gone
where (select count(*) from told) + (select count(*) from told_all) > 0;


-- name: touch_tokens
-- These were used.
update tokens set last_used_at = now() where token_id = any($1::text[]);
