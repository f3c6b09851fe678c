-- For the list of retrievals by state, newest first. The older version, which may run on meanwhile, waits with its writes to this table while the index is built: a second for a
-- million rows.
create index retrieval_by_state on retrieval (state, id desc);
