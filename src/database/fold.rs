//! The instance rows of a series whose job is over, folded into one value and unfolded when something comes for it again.

use serde_json::Value;
use sqlx::PgConnection;

use super::{Database, DatabaseError};

impl Database {
    /// Folds the instances of a series into its row: `[[SOP Instance UID, hex digest], ...]`, a third value `false` where other bytes came later. Only where
    /// the series is taken or ignored, none of its jobs waits or runs, and no bytes are held. False: it is not so.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn fold_series(&self, series_id: i64) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let folded = fold_in(&mut transaction, series_id).await?;
        transaction.commit().await?;
        Ok(folded)
    }
}

/// As [`Database::fold_series`], within a transaction.
pub(super) async fn fold_in(connection: &mut PgConnection, series_id: i64) -> Result<bool, DatabaseError> {
    let foldable = sqlx::query_scalar!(
        "select id from series where id = $1 and state in ('taken', 'ignored') and folded is null
             and not exists (select from job where series_id = $1 and state in ('queued', 'running'))
             and not exists (select from instance where series_id = $1 and batch_id is not null)
             and exists (select from instance where series_id = $1)
         for update",
        series_id
    )
    .fetch_optional(&mut *connection)
    .await?;
    if foldable.is_none() {
        return Ok(false);
    }
    sqlx::query!(
        r#"update series set folded = (
               select jsonb_agg(case when newest then jsonb_build_array(sop_instance_uid, encode(digest, 'hex'))
                                     else jsonb_build_array(sop_instance_uid, encode(digest, 'hex'), false) end
                                order by sop_instance_uid collate "C", digest)
               from instance where series_id = $1)
           where id = $1"#,
        series_id
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!("delete from instance where series_id = $1", series_id)
        .execute(&mut *connection)
        .await?;
    Ok(true)
}

/// Makes rows again of what was folded: known, without bytes. The row of the series is locked.
pub(super) async fn unfold(connection: &mut PgConnection, series_id: i64, folded: Value) -> Result<(), DatabaseError> {
    sqlx::query!(
        "insert into instance (series_id, sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, file_offset, file_length, newest)
         select $1, one ->> 0, decode(one ->> 1, 'hex'), '', '', 0, 0, coalesce((one ->> 2)::boolean, true)
         from jsonb_array_elements($2) as one
         on conflict do nothing",
        series_id,
        folded
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!("update series set folded = null where id = $1", series_id)
        .execute(connection)
        .await?;
    Ok(())
}
