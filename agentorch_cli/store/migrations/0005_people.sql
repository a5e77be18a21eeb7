-- Work that an agent does not want, a person above all: it goes to others, and never back to that one.

alter table task_distributions
  -- null where nobody did; a retry by a person begins anew
  add column declined_by text[];
