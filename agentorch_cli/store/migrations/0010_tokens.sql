-- Tokens: who may do what from afar. Only a hash of each is kept.

create table tokens (
  token_id     text primary key check (length(token_id) between 1 and 50),
  name         text not null check (length(name) between 1 and 200),
  -- SHA-256 of the whole token, in hexadecimal digits
  hash         text not null unique check (hash ~ '^[0-9a-f]{64}$'),
  scopes       text[] not null check (cardinality(scopes) between 1 and 100),
  created_at   timestamptz not null default now(),
  expires_at   timestamptz check (expires_at > created_at),
  -- written at most once a minute
  last_used_at timestamptz,
  revoked_at   timestamptz
);

-- A name stands for one token at a time; that of a revoked one is free again.
create unique index token_name on tokens (name) where revoked_at is null;
