//! Series and batches: what a request brought becomes rows, in one transaction and after the bytes are on the disk.

use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::delivery::withdraw_partial;
use super::instances::{clamped, store_instances};
use super::{Database, DatabaseError, NewEvent, append};

/// SHA-256 of the bytes of an instance.
pub type InstanceDigest = [u8; 32];

/// Most UIDs that an event lists.
const LISTED_UIDS: usize = 50;

/// Where a series stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "series_state", rename_all = "snake_case")]
pub enum SeriesState {
    /// Instances may still come.
    Receiving,
    /// Whole; a job is due.
    Settled,
    /// A job has it.
    Taken,
    /// Not for us; the finding says why.
    Ignored,
}

/// Who said that a series is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettledBy {
    /// Its sender.
    Sender,
    /// The count of the PACS that it came from.
    Count,
    /// A quiet time.
    Quiet,
    /// A user.
    Finalize,
}

impl SettledBy {
    /// As it stands in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SettledBy::Sender => "sender",
            SettledBy::Count => "count",
            SettledBy::Quiet => "quiet",
            SettledBy::Finalize => "finalize",
        }
    }
}

/// A stable code and its sentence: why a series is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredBecause {
    /// The code.
    pub code: String,
    /// The sentence.
    pub sentence: String,
}

/// An instance that a request brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrivedInstance {
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// TransferSyntaxUID.
    pub transfer_syntax_uid: String,
    /// Digest of its bytes.
    pub digest: InstanceDigest,
    /// Offset and length in the batch file; `None`: these bytes are held already and were not written again.
    pub place: Option<(u64, u64)>,
}

/// The instances of one series that a request brought, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArrivedSeries {
    /// StudyInstanceUID.
    pub study_uid: String,
    /// SeriesInstanceUID.
    pub series_uid: String,
    /// Name of the PACS that it came from.
    pub source: Option<String>,
    /// What its sender calls itself, where no PACS has this name.
    pub unknown_source: Option<String>,
    /// Modality.
    pub modality: String,
    /// AccessionNumber.
    pub accession_number: String,
    /// PatientID.
    pub patient_id: String,
    /// StudyDate.
    pub study_date: String,
    /// StudyDescription.
    pub study_description: String,
    /// SeriesDescription.
    pub series_description: String,
    /// Those that are kept.
    pub instances: Vec<ArrivedInstance>,
    /// How many were dropped, and why.
    pub dropped: Option<(usize, IgnoredBecause)>,
}

/// What became of an instance that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was not known.
    New,
    /// The same bytes are held.
    Duplicate,
    /// The same bytes are held, and other ones came after them, which count.
    Older,
    /// It was known, its bytes had been removed, and are kept anew.
    KeptAnew,
    /// Other bytes were known under the same UIDs.
    Revised,
}

/// What became of a series of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSeries {
    /// Its row.
    pub id: i64,
    /// Where it stands now.
    pub state: SeriesState,
    /// For each instance, in the order given.
    pub instances: Vec<Stored>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Whether a row refers to the file; otherwise nothing in it is needed.
    pub file_needed: bool,
    /// The series, in the order given.
    pub series: Vec<StoredSeries>,
}

impl Database {
    /// Makes rows of what a request brought. The file must be synced before. Series are taken in the order of their UIDs, so that two requests never wait for
    /// each other. With `whole` the sender says that they are, and they settle.
    ///
    /// `None`: an instance was left out of the file because its bytes were held, and they were removed since; nothing is changed.
    ///
    /// # Errors
    /// Those of the database. Whether the transaction came through is then not known.
    pub async fn store_batch(
        &self,
        file: Option<(&str, u64)>,
        series: &[ArrivedSeries],
        actor: &str,
        whole: bool,
    ) -> Result<Option<StoredBatch>, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        // First of all, so that a sweep which meets the name waits for the end of this transaction.
        let batch_id = match file {
            None => None,
            Some((name, bytes)) => Some(
                sqlx::query_scalar!(
                    "insert into batch (file, bytes) values ($1, $2) returning id",
                    name,
                    clamped(bytes)
                )
                .fetch_one(&mut *transaction)
                .await?,
            ),
        };
        let mut order: Vec<usize> = (0..series.len()).collect();
        order.sort_by_key(|at| (&series[*at].study_uid, &series[*at].series_uid));
        let mut stored: Vec<Option<StoredSeries>> = vec![None; series.len()];
        for at in order {
            match store_series(&mut transaction, batch_id, &series[at], actor, whole).await? {
                Some(done) => stored[at] = Some(done),
                None => return Ok(None),
            }
        }
        let mut file_needed = false;
        if let Some(id) = batch_id {
            let deleted = sqlx::query!(
                "delete from batch where id = $1 and not exists (select from instance where batch_id = $1)",
                id
            )
            .execute(&mut *transaction)
            .await?;
            file_needed = deleted.rows_affected() == 0;
        }
        transaction.commit().await?;
        Ok(Some(StoredBatch {
            file_needed,
            series: stored.into_iter().flatten().collect(),
        }))
    }

    /// Those of these files that no row names.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn files_without_rows(&self, files: &[String]) -> Result<Vec<String>, DatabaseError> {
        Ok(sqlx::query_scalar!(
            r#"select name as "name!" from unnest($1::text[]) as name where not exists (select from batch where file = name)"#,
            files
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// Calls `remove` if no row names the file, nor a transaction that is under way will. The name is held meanwhile.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn if_garbage(&self, file: &str, remove: impl FnOnce()) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let free = sqlx::query_scalar!(
            "insert into batch (file, bytes) values ($1, 0) on conflict (file) do nothing returning id",
            file
        )
        .fetch_optional(&mut *transaction)
        .await?
        .is_some();
        if free {
            remove();
        }
        transaction.rollback().await?;
        Ok(free)
    }
}

/// One series of a batch: its row, its instances, its events.
async fn store_series(
    connection: &mut PgConnection,
    batch_id: Option<i64>,
    arrived: &ArrivedSeries,
    actor: &str,
    whole: bool,
) -> Result<Option<StoredSeries>, DatabaseError> {
    let wanted = !arrived.instances.is_empty();
    let first_state = if wanted {
        SeriesState::Receiving
    } else {
        SeriesState::Ignored
    };
    let because = arrived.dropped.as_ref().filter(|_| !wanted).map(|(_, because)| because);
    let row = sqlx::query!(
        r#"insert into series (study_uid, series_uid, source, state, modality, accession_number, patient_id, study_date, study_description,
               series_description, finding_code, finding_sentence)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
           on conflict (study_uid, series_uid) do update set last_instance_at = now(), source = coalesce(series.source, excluded.source)
           returning id, state as "state: SeriesState", folded, xmax = 0 as "is_new!""#,
        arrived.study_uid,
        arrived.series_uid,
        arrived.source,
        first_state as SeriesState,
        arrived.modality,
        arrived.accession_number,
        arrived.patient_id,
        arrived.study_date,
        arrived.study_description,
        arrived.series_description,
        because.map(|because| because.code.as_str()),
        because.map(|because| because.sentence.as_str()),
    )
    .fetch_one(&mut *connection)
    .await?;
    if let Some(name) = &arrived.unknown_source {
        tell_unknown_source(connection, row.id, name, actor).await?;
    }
    if !wanted {
        if row.is_new {
            let code = because.map(|because| because.code.as_str());
            let dropped = arrived.dropped.as_ref().map(|(count, _)| *count);
            tell(
                connection,
                "series_ignored",
                row.id,
                actor,
                json!({"code": code, "dropped": dropped}),
            )
            .await?;
        }
        return Ok(Some(StoredSeries {
            id: row.id,
            state: row.state,
            instances: Vec::new(),
        }));
    }
    if let Some(folded) = row.folded {
        super::fold::unfold(connection, row.id, folded).await?;
    }
    let Some(stored) = store_instances(connection, batch_id, row.id, &arrived.instances).await? else {
        return Ok(None);
    };
    let state = after_instances(connection, row.id, row.state, arrived, &stored, actor).await?;
    let state = if whole && state == SeriesState::Receiving {
        super::settling::settle_in(connection, row.id, SettledBy::Sender, actor).await?
    } else {
        state
    };
    Ok(Some(StoredSeries {
        id: row.id,
        state,
        instances: stored,
    }))
}

/// Tells that a series came from a sender that calls itself by a name which no PACS has; once for each name, however many requests bring it.
async fn tell_unknown_source(
    connection: &mut PgConnection,
    series_id: i64,
    name: &str,
    actor: &str,
) -> Result<(), DatabaseError> {
    let told = sqlx::query_scalar!(
        r#"select exists (select from event where series_id = $1 and kind = 'source_unknown' and detail ->> 'source' = $2) as "told!""#,
        series_id,
        name
    )
    .fetch_one(&mut *connection)
    .await?;
    if told {
        return Ok(());
    }
    tell(connection, "source_unknown", series_id, actor, json!({"source": name})).await
}

/// Counts what is held anew, opens a series again that something new came for, and tells it.
async fn after_instances(
    connection: &mut PgConnection,
    series_id: i64,
    state: SeriesState,
    arrived: &ArrivedSeries,
    stored: &[Stored],
    actor: &str,
) -> Result<SeriesState, DatabaseError> {
    let count = |what: Stored| stored.iter().filter(|one| **one == what).count();
    let (new, revised, kept_anew) = (count(Stored::New), count(Stored::Revised), count(Stored::KeptAnew));
    let uids = |what: Stored| {
        let pairs = stored.iter().zip(&arrived.instances).filter(|(one, _)| **one == what);
        let uids = pairs
            .map(|(_, instance)| instance.sop_instance_uid.as_str())
            .take(LISTED_UIDS);
        uids.collect::<Vec<_>>()
    };
    let older = count(Stored::Older);
    if older > 0 {
        let detail = json!({"count": older, "sop_instance_uids": uids(Stored::Older)});
        tell(connection, "instance_older_revision", series_id, actor, detail).await?;
    }
    if new + revised + kept_anew == 0 {
        return Ok(state);
    }
    sqlx::query!(
        "update series set instances = held.count, bytes = held.bytes
         from (select count(*) filter (where newest)::integer as count,
                   coalesce(sum(file_length) filter (where batch_id is not null), 0)::bigint as bytes
               from instance where series_id = $1) as held
         where id = $1",
        series_id
    )
    .execute(&mut *connection)
    .await?;
    if kept_anew > 0 {
        // What was removed is held again: its jobs say so, and what is removed next.
        sqlx::query!(
            "update job set removed = null where series_id = $1 and removed is not null",
            series_id
        )
        .execute(&mut *connection)
        .await?;
    }
    let duplicates = count(Stored::Duplicate) + count(Stored::Older);
    let dropped = arrived.dropped.as_ref().map_or(0, |(count, _)| *count);
    let detail =
        json!({"new": new, "revised": revised, "kept_anew": kept_anew, "duplicates": duplicates, "dropped": dropped});
    tell(connection, "instances_received", series_id, actor, detail).await?;
    if revised > 0 {
        let detail = json!({"count": revised, "sop_instance_uids": uids(Stored::Revised)});
        tell(connection, "instance_revised", series_id, actor, detail).await?;
    }
    // Bytes that come back for a series that was given up for want of them open it again as well.
    let opens = new + revised > 0 || state == SeriesState::Ignored;
    if state == SeriesState::Receiving || !opens {
        return Ok(state);
    }
    sqlx::query!(
        "update series set state = 'receiving', settled_by = null, settled_at = null, revision = null, finding_code = null,
             finding_sentence = null, source_count = null, source_count_since = null, source_asked_at = null,
             modality = case when modality = '' or state = 'ignored' then $2 else modality end
         where id = $1",
        series_id,
        arrived.modality
    )
    .execute(&mut *connection)
    .await?;
    let from = match state {
        SeriesState::Settled => "settled",
        SeriesState::Taken => "taken",
        SeriesState::Ignored | SeriesState::Receiving => "ignored",
    };
    let detail = json!({"from": from, "new": new, "revised": revised, "kept_anew": kept_anew});
    tell(connection, "series_reopened", series_id, actor, detail).await?;
    withdraw_partial(connection, series_id, actor).await?;
    Ok(SeriesState::Receiving)
}

/// An event of a series.
pub(super) async fn tell(
    connection: &mut PgConnection,
    kind: &str,
    series_id: i64,
    actor: &str,
    detail: serde_json::Value,
) -> Result<(), DatabaseError> {
    append(
        connection,
        NewEvent {
            kind,
            series_id: Some(series_id),
            actor,
            detail,
            ..NewEvent::default()
        },
    )
    .await
}

/// The revision of a series: SHA-256 over its instances, sorted: UID, a zero byte, digest.
pub(super) fn revision<'a>(sorted: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for (uid, digest) in sorted {
        hasher.update(uid.as_bytes());
        hasher.update([0]);
        hasher.update(digest);
    }
    hasher.finalize().into()
}
