//! The rows of instances: which are held, and what becomes of those that a request brought.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use super::inbox::{ArrivedInstance, InstanceDigest, Stored};
use super::{Database, DatabaseError};

/// An instance as it is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldInstance {
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// SOPClassUID.
    pub sop_class_uid: String,
    /// TransferSyntaxUID.
    pub transfer_syntax_uid: String,
    /// Digest of its bytes.
    pub digest: Vec<u8>,
    /// Name of the batch file; `None`: its bytes were removed.
    pub file: Option<String>,
    /// First byte in the file.
    pub offset: i64,
    /// Length in bytes.
    pub length: i64,
}

impl Database {
    /// The instances of a series whose bytes are held: (SOPInstanceUID, digest).
    ///
    /// # Errors
    /// Those of the database.
    pub async fn held_digests(
        &self,
        study_uid: &str,
        series_uid: &str,
    ) -> Result<HashSet<(String, InstanceDigest)>, DatabaseError> {
        let rows = sqlx::query!(
            "select sop_instance_uid, digest from instance join series on series.id = series_id
             where study_uid = $1 and series_uid = $2 and batch_id is not null",
            study_uid,
            series_uid
        )
        .fetch_all(self.pool())
        .await?;
        let known = |digest: Vec<u8>| InstanceDigest::try_from(digest).ok();
        Ok(rows
            .into_iter()
            .filter_map(|row| Some((row.sop_instance_uid, known(row.digest)?)))
            .collect())
    }

    /// The newest instances of a series, by UID: what a job reads.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn held_instances(&self, series_id: i64) -> Result<Vec<HeldInstance>, DatabaseError> {
        Ok(sqlx::query_as!(
            HeldInstance,
            r#"select sop_instance_uid, sop_class_uid, transfer_syntax_uid, digest, file as "file?", file_offset as "offset", file_length as "length"
               from instance left join batch on batch.id = batch_id
               where series_id = $1 and newest order by sop_instance_uid collate "C""#,
            series_id
        )
        .fetch_all(self.pool())
        .await?)
    }
}

/// What a series knows of one SOP Instance UID and digest.
struct Known {
    held: bool,
    newest: bool,
}

/// The rows of the instances of one series. The row of the series is locked, so that nobody else writes them.
pub(super) async fn store_instances(
    connection: &mut PgConnection,
    batch_id: Option<i64>,
    series_id: i64,
    arrived: &[ArrivedInstance],
) -> Result<Option<Vec<Stored>>, DatabaseError> {
    let uids: Vec<String> = arrived.iter().map(|one| one.sop_instance_uid.clone()).collect();
    let rows = sqlx::query!(
        r#"select sop_instance_uid, digest, batch_id is not null as "held!", newest from instance
           where series_id = $1 and sop_instance_uid = any($2)"#,
        series_id,
        &uids
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut known: HashMap<String, HashMap<Vec<u8>, Known>> = HashMap::new();
    for row in rows {
        let of_uid = known.entry(row.sop_instance_uid).or_default();
        let known = Known {
            held: row.held,
            newest: row.newest,
        };
        of_uid.insert(row.digest, known);
    }
    let mut stored = Vec::with_capacity(arrived.len());
    let (mut insert, mut keep, mut older) = (Vec::new(), Vec::new(), Vec::new());
    let mut newest: HashMap<&str, usize> = HashMap::new();
    for (at, one) in arrived.iter().enumerate() {
        let of_uid = known.entry(one.sop_instance_uid.clone()).or_default();
        let had_others = !of_uid.is_empty();
        let outcome = match (of_uid.get_mut(one.digest.as_slice()), one.place) {
            (Some(known), _) if known.held && known.newest => Stored::Duplicate,
            (Some(known), _) if known.held => Stored::Older,
            // Left out of the file as held, and no longer so.
            (_, None) => return Ok(None),
            (Some(known), Some(_)) => {
                known.held = true;
                keep.push(at);
                Stored::KeptAnew
            }
            (None, Some(_)) => {
                of_uid.values_mut().for_each(|earlier| earlier.newest = false);
                let known = Known {
                    held: true,
                    newest: true,
                };
                of_uid.insert(one.digest.to_vec(), known);
                insert.push(at);
                newest.insert(&one.sop_instance_uid, at);
                if had_others {
                    older.push(one.sop_instance_uid.clone());
                    Stored::Revised
                } else {
                    Stored::New
                }
            }
        };
        stored.push(outcome);
    }
    if !older.is_empty() {
        sqlx::query!(
            "update instance set newest = false where series_id = $1 and sop_instance_uid = any($2) and newest",
            series_id,
            &older
        )
        .execute(&mut *connection)
        .await?;
    }
    if !insert.is_empty() {
        let columns = Columns::of(arrived, &insert);
        let is_newest: Vec<bool> = insert
            .iter()
            .map(|at| newest.get(arrived[*at].sop_instance_uid.as_str()) == Some(at))
            .collect();
        sqlx::query!(
            "insert into instance (series_id, batch_id, sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, file_offset, file_length, newest)
             select $1, $2, * from unnest($3::text[], $4::bytea[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::boolean[])",
            series_id,
            batch_id,
            &columns.uids,
            &columns.digests,
            &columns.classes,
            &columns.syntaxes,
            &columns.offsets,
            &columns.lengths,
            &is_newest
        )
        .execute(&mut *connection)
        .await?;
    }
    if !keep.is_empty() {
        let columns = Columns::of(arrived, &keep);
        sqlx::query!(
            "update instance set batch_id = $2, file_offset = kept.file_offset, file_length = kept.file_length,
                 sop_class_uid = kept.sop_class_uid, transfer_syntax_uid = kept.transfer_syntax_uid
             from unnest($3::text[], $4::bytea[], $5::text[], $6::text[], $7::bigint[], $8::bigint[])
                 as kept (sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, file_offset, file_length)
             where series_id = $1 and instance.sop_instance_uid = kept.sop_instance_uid and instance.digest = kept.digest",
            series_id,
            batch_id,
            &columns.uids,
            &columns.digests,
            &columns.classes,
            &columns.syntaxes,
            &columns.offsets,
            &columns.lengths
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(Some(stored))
}

/// Instances as columns, so that one statement writes them all.
#[derive(Default)]
struct Columns {
    uids: Vec<String>,
    digests: Vec<Vec<u8>>,
    classes: Vec<String>,
    syntaxes: Vec<String>,
    offsets: Vec<i64>,
    lengths: Vec<i64>,
}

impl Columns {
    fn of(arrived: &[ArrivedInstance], which: &[usize]) -> Columns {
        let mut columns = Columns::default();
        for one in which.iter().map(|at| &arrived[*at]) {
            let (offset, length) = one.place.unwrap_or_default();
            columns.uids.push(one.sop_instance_uid.clone());
            columns.digests.push(one.digest.to_vec());
            columns.classes.push(one.sop_class_uid.clone());
            columns.syntaxes.push(one.transfer_syntax_uid.clone());
            columns.offsets.push(clamped(offset));
            columns.lengths.push(clamped(length));
        }
        columns
    }
}

/// As PostgreSQL counts: it has no unsigned numbers.
pub(super) fn clamped(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
