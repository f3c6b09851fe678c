-- The service's state: series that arrive, jobs that segment them, deliveries that bring the results to a PACS, and the events that tell it all.
-- Times are the database's clock, UTC. No names and no birth dates are kept.

create type series_state as enum ('receiving', 'settled', 'taken', 'ignored');
create type job_state as enum ('queued', 'running', 'done', 'refused', 'failed', 'canceled', 'superseded');
create type retrieval_state as enum ('seen', 'pending', 'running', 'done', 'failed');
create type delivery_state as enum ('pending', 'sending', 'delivered', 'given_up', 'withdrawn');

create table series (
    id                 bigint generated always as identity primary key,
    study_uid          text not null,
    series_uid         text not null,
    -- The [[pacs]] block that it came from; null: a sender that no block knows.
    source             text,
    state              series_state not null default 'receiving',
    -- Who said that it is whole: sender, count, quiet or finalize.
    settled_by         text,
    -- SHA-256 over the sorted (SOP Instance UID, digest of its bytes), from the moment it settled.
    revision           bytea,
    modality           text not null default '',
    accession_number   text not null default '',
    patient_id         text not null default '',
    study_date         text not null default '',
    study_description  text not null default '',
    series_description text not null default '',
    -- Instances known (the newest revision of each), and bytes held (of all revisions).
    instances          integer not null default 0,
    bytes              bigint not null default 0,
    -- What its jobs begin with.
    priority           smallint not null default 0,
    -- Why it is ignored: a stable code and its sentence.
    finding_code       text,
    finding_sentence   text,
    -- NumberOfSeriesRelatedInstances as its source last said, and since when it says so.
    source_count       integer,
    source_count_since timestamptz,
    source_asked_at    timestamptz,
    received_at        timestamptz not null default now(),
    last_instance_at   timestamptz not null default now(),
    settled_at         timestamptz,
    -- Once its job is over, the instances folded into one value: [[SOP Instance UID, hex digest], ...].
    folded             jsonb,
    unique (study_uid, series_uid)
);
create index series_open on series (last_instance_at) where state = 'receiving';
create index series_held on series (last_instance_at) where state in ('taken', 'ignored') and bytes > 0;
create index series_settled on series (settled_at) where state = 'settled';
create index series_by_uid on series (series_uid);
create index series_by_accession on series (accession_number, id desc);
create index series_newest on series (received_at desc, id desc);
create index series_by_state on series (state, received_at desc, id desc);

-- One request that brought instances is one file.
create table batch (
    id          bigint generated always as identity primary key,
    file        text not null unique,
    bytes       bigint not null,
    created_at  timestamptz not null default now()
);

create table instance (
    series_id           bigint not null references series on delete cascade,
    sop_instance_uid    text not null,
    digest              bytea not null,
    sop_class_uid       text not null,
    transfer_syntax_uid text not null,
    -- Where its bytes lie; null once they were removed.
    batch_id            bigint references batch on delete set null,
    file_offset         bigint not null,
    file_length         bigint not null,
    -- False once other bytes came under the same UIDs.
    newest              boolean not null default true,
    received_at         timestamptz not null default now(),
    primary key (series_id, sop_instance_uid, digest)
);
create index instance_by_batch on instance (batch_id);

create table job (
    id                uuid primary key,
    series_id         bigint not null references series on delete cascade,
    series_revision   bytea not null,
    model             text not null,
    model_digest      text not null,
    parameters_digest text not null,
    pipeline_revision integer not null,
    state             job_state not null default 'queued',
    priority          smallint not null default 0,
    -- The fencing token: goes up with every claim; every write of a worker names it.
    token             bigint not null default 0,
    worker            text,
    lease_until       timestamptz,
    not_before        timestamptz not null default now(),
    attempts          integer not null default 0,
    deaths            integer not null default 0,
    -- Runs with no other job beside it, after two deaths.
    alone             boolean not null default false,
    cancel_requested  boolean not null default false,
    stage             text,
    windows_done      integer not null default 0,
    windows_total     integer not null default 0,
    progress_at       timestamptz,
    predecessor       uuid references job on delete set null,
    error_code        text,
    error_sentence    text,
    report            jsonb,
    -- The folder of its results under the data folder, from the moment it is done.
    result_folder     text,
    -- SOP Instance UID of its segmentation, where there is one.
    segmentation_uid  text,
    -- Whether its deliveries were made (or none is due).
    deliveries_planned boolean not null default false,
    -- What retention removed, and when.
    removed           jsonb,
    created_at        timestamptz not null default now(),
    started_at        timestamptz,
    finished_at       timestamptz,
    unique (series_id, series_revision, model_digest, parameters_digest, pipeline_revision)
);
create index job_queue on job (priority desc, created_at, id) where state = 'queued';
create index job_running on job (lease_until) where state = 'running';
create index job_newest on job (created_at desc, id desc);
create index job_by_state on job (state, created_at desc, id desc);
create index job_unplanned on job (finished_at) where state = 'done' and not deliveries_planned;
create index job_by_series on job (series_id, created_at desc);

create table delivery (
    id               bigint generated always as identity primary key,
    job_id           uuid not null references job on delete cascade,
    destination      text not null,
    state            delivery_state not null default 'pending',
    -- The file to send, under the job's results.
    file             text not null,
    sop_class_uid    text not null,
    sop_instance_uid text not null,
    token            bigint not null default 0,
    worker           text,
    lease_until      timestamptz,
    not_before       timestamptz not null default now(),
    attempts         integer not null default 0,
    error            text,
    created_at       timestamptz not null default now(),
    -- Since when it is tried: given up so long after; a wish to deliver again begins anew.
    wanted_at        timestamptz not null default now(),
    delivered_at     timestamptz,
    unique (job_id, destination)
);
create index delivery_queue on delivery (not_before) where state = 'pending';
create index delivery_sending on delivery (lease_until) where state = 'sending';

create table event (
    id          bigint generated always as identity primary key,
    at          timestamptz not null default now(),
    -- Rows may commit out of order: readers stop below pg_snapshot_xmin.
    transaction xid8 not null default pg_current_xact_id(),
    kind        text not null,
    series_id   bigint,
    job_id      uuid,
    delivery_id bigint,
    -- Who did it: a worker, a user, a sender, or the part of Hilum.
    actor       text not null,
    detail      jsonb not null default '{}'
);
create index event_by_job on event (job_id, id) where job_id is not null;
create index event_by_series on event (series_id, id) where series_id is not null;
create index event_by_time on event (at);
-- Below pg_snapshot_xmin nothing is added any more in this order; in the order of ids it may be.
create index event_by_transaction on event (transaction, id);

-- A series that is to be retrieved from a PACS: found by asking it, or wished for by a user.
create table retrieval (
    id           bigint generated always as identity primary key,
    pacs         text not null,
    study_uid    text not null,
    series_uid   text not null,
    -- seen: waits until the count of instances is the same in two answers.
    state        retrieval_state not null default 'seen',
    count        integer,
    count_since  timestamptz,
    priority     smallint not null default 0,
    attempts     integer not null default 0,
    not_before   timestamptz not null default now(),
    lease_until  timestamptz,
    token        bigint not null default 0,
    error        text,
    actor        text not null,
    created_at   timestamptz not null default now(),
    finished_at  timestamptz,
    unique (pacs, study_uid, series_uid)
);
create index retrieval_queue on retrieval (priority desc, not_before) where state in ('seen', 'pending');
create index retrieval_running on retrieval (lease_until) where state = 'running';

-- Workers that live; a lease that ends says that one died.
create table worker (
    id         text primary key,
    host       text not null,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now()
);

-- One row: switches that hold for the whole service.
create table service (
    only_row boolean primary key default true check (only_row),
    paused   boolean not null default false
);
insert into service default values;
