-- Nothing here rewrites a row or is asked of an older version, which may run on meanwhile.

-- When the job was queued again: it had been superseded, had failed or had been canceled, and was wished for once more. Null: only once, when it was made. An attempt that is
-- given back to the queue does not count.
alter table job add column queued_again_at timestamptz;

-- Where nothing of a finished job goes and why, as it was decided last: [{"destination": name or null, "why": code}, ...].
alter table job add column withheld jsonb;

-- Up to which event what became of the series of a PACS is written there.
create table marked (
    pacs        text primary key,
    transaction xid8 not null,
    event_id    bigint not null
);
