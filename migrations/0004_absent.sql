-- Attempts in a row of a retrieval in which what answered had not what was asked for (404, a redirect, a page): they are fewer than others, and lie hours apart. A constant default
-- rewrites no row.
alter table retrieval add column absent integer not null default 0;
