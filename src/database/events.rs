//! The events: what happened, when, by whom and why. Every change of a state appends one in its own transaction.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::DatabaseError;

/// What is to be told.
#[derive(Clone, Debug, Default)]
pub struct NewEvent<'a> {
    /// What happened: `series_settled`, `job_done`, ...
    pub kind: &'a str,
    /// The series concerned.
    pub series_id: Option<i64>,
    /// The job concerned.
    pub job_id: Option<Uuid>,
    /// The delivery concerned.
    pub delivery_id: Option<i64>,
    /// Who did it.
    pub actor: &'a str,
    /// Why, and with what.
    pub detail: Value,
}

/// Appends an event within the transaction of the change it tells.
///
/// # Errors
/// Those of the database.
pub async fn append(connection: &mut PgConnection, event: NewEvent<'_>) -> Result<(), DatabaseError> {
    let detail = if event.detail.is_null() {
        Value::Object(serde_json::Map::new())
    } else {
        event.detail
    };
    sqlx::query!(
        "insert into event (kind, series_id, job_id, delivery_id, actor, detail) values ($1, $2, $3, $4, $5, $6)",
        event.kind,
        event.series_id,
        event.job_id,
        event.delivery_id,
        event.actor,
        detail
    )
    .execute(&mut *connection)
    .await?;
    // A hint for those who watch; they also look by themselves.
    sqlx::query!("select pg_notify('hilum_event', '')")
        .execute(connection)
        .await?;
    Ok(())
}
