//! A series that is whole because a user says so.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Database, DatabaseError, NewEvent, append};

impl Database {
    /// Says that a series is whole. False where it is not arriving (any more).
    ///
    /// # Errors
    /// Those of the database.
    pub async fn finalize_series(&self, series_id: i64, actor: &str) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        let arriving = sqlx::query_scalar!(
            "select id from series where id = $1 and state = 'receiving' for update",
            series_id
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if arriving.is_none() {
            return Ok(false);
        }
        let instances = sqlx::query!(
            r#"select sop_instance_uid, digest from instance where series_id = $1 and newest order by sop_instance_uid collate "C", digest"#,
            series_id
        )
        .fetch_all(&mut *transaction)
        .await?;
        let mut revision = Sha256::new();
        for instance in &instances {
            revision.update(instance.sop_instance_uid.as_bytes());
            revision.update([0]);
            revision.update(&instance.digest);
        }
        let revision = revision.finalize();
        sqlx::query!(
            "update series set state = 'settled', settled_by = 'finalize', settled_at = now(), revision = $2 where id = $1",
            series_id,
            revision.as_slice()
        )
        .execute(&mut *transaction)
        .await?;
        let event = NewEvent {
            kind: "series_settled",
            series_id: Some(series_id),
            actor,
            detail: json!({ "by": "finalize", "instances": instances.len() }),
            ..NewEvent::default()
        };
        append(&mut transaction, event).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
