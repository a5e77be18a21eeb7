-- Room on pages for what tasks and attempts become, so that it is written beside what they were.
--
-- A program of an earlier version needs nothing of this, and keeps working beside it. What is stored already
-- stays where it is: the room is kept on new pages.

-- The second version of each task beside the first, and some more, for it is longer: with less room one end in
-- eight found none on its page, and had to be entered into every index again.
alter table task_distributions set (fillfactor = 45);
-- The second version of an attempt beside the first: what they share is not written to the log again.
alter table task_attempts set (fillfactor = 50);

-- Each of these has two entries for the same key for a moment, those of the two versions of a row. The first is of
-- no use any more when the page is full, and goes then; to make one entry of both before that is work for nothing.
alter index task_distributions_pkey set (deduplicate_items = off);
alter index task_recent set (deduplicate_items = off);
alter index task_attempts_pkey set (deduplicate_items = off);
alter index attempt_is_made_once set (deduplicate_items = off);

-- As before. What `extract` answers is a decimal number, which becomes a float8 by way of its digits.
create or replace function agentorch_urgency(ready_at timestamptz, priority integer, aging_seconds double precision)
returns bigint language sql stable as $$
  select case when aging_seconds > 0
    then floor(date_part('epoch', ready_at) / aging_seconds)::bigint - priority
    else -priority end
$$;
