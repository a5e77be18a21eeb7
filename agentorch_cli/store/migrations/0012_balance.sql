-- Work that agents are handed before they have a slot for it.

-- attempts beyond its slots that the agent holds at most; their slot numbers follow those of its slots
alter table agent_registry add column prefetch integer not null default 0 check (prefetch between 0 and 1000);
