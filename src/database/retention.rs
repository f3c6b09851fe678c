//! Which series may lose their bytes, and what their rows say afterwards.

use serde_json::json;

use super::fold::fold_in;
use super::{Database, DatabaseError, NewEvent, append};

/// How long bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keep {
    /// Hours after a job is done.
    pub done_hours: f64,
    /// Days after any other end.
    pub other_days: f64,
}

impl Database {
    /// The series whose bytes have been kept long enough: taken or ignored, none of their jobs queued or running.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn series_to_release(&self, keep: Keep, most: i64) -> Result<Vec<i64>, DatabaseError> {
        Ok(sqlx::query_scalar!(
            "select series.id from series
             left join lateral (select state, finished_at from job where series_id = series.id and state <> 'superseded'
                                order by coalesce(queued_again_at, created_at) desc, id desc limit 1) as latest on true
             where series.state in ('taken', 'ignored') and series.bytes > 0
                 and not exists (select from job where series_id = series.id and state in ('queued', 'running'))
                 and greatest(series.last_instance_at, latest.finished_at)
                     < now() - case when latest.state = 'done' then make_interval(secs => $1::double precision * 3600) else make_interval(secs => $2::double precision * 86400) end
             order by series.last_instance_at limit $3",
            keep.done_hours,
            keep.other_days,
            most
        )
        .fetch_all(self.pool())
        .await?)
    }

    /// Takes the bytes of a series out of the tables, folds its instances, and notes it at its jobs. Returns the batch files that nothing refers to any more,
    /// `None` where the series must keep its bytes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn release_series(
        &self,
        series_id: i64,
        keep: Keep,
        actor: &str,
    ) -> Result<Option<Vec<String>>, DatabaseError> {
        let mut transaction = self.pool().begin().await?;
        // The row is locked first, so that a job which is made meanwhile is seen by the second question.
        sqlx::query!("select id from series where id = $1 for update", series_id)
            .fetch_optional(&mut *transaction)
            .await?;
        let due = sqlx::query!(
            r#"select series.bytes, latest.id as "job_id?", latest.state::text as "ended?" from series
               left join lateral (select id, state, finished_at from job where series_id = series.id and state <> 'superseded'
                                  order by coalesce(queued_again_at, created_at) desc, id desc limit 1) as latest on true
               where series.id = $1 and series.state in ('taken', 'ignored') and series.bytes > 0
                   and not exists (select from job where series_id = series.id and state in ('queued', 'running'))
                   and greatest(series.last_instance_at, latest.finished_at)
                       < now() - case when latest.state = 'done' then make_interval(secs => $2::double precision * 3600) else make_interval(secs => $3::double precision * 86400) end"#,
            series_id,
            keep.done_hours,
            keep.other_days
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(due) = due else {
            return Ok(None);
        };
        // Two series of one batch may go at the same time: the second one waits here, and sees that nothing is left.
        let batches = sqlx::query_scalar!(
            "select id from batch where id in (select batch_id from instance where series_id = $1) order by id for update",
            series_id
        )
        .fetch_all(&mut *transaction)
        .await?;
        let removed = sqlx::query!(
            "update instance set batch_id = null where series_id = $1 and batch_id is not null",
            series_id
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        let files = sqlx::query_scalar!(
            "delete from batch where id = any($1) and not exists (select from instance where batch_id = batch.id) returning file",
            &batches
        )
        .fetch_all(&mut *transaction)
        .await?;
        sqlx::query!("update series set bytes = 0 where id = $1", series_id)
            .execute(&mut *transaction)
            .await?;
        sqlx::query!(
            "update job set removed = jsonb_build_object('what', 'slices', 'instances', $2::bigint, 'bytes', $3::bigint, 'at', now())
             where series_id = $1 and removed is null",
            series_id,
            i64::try_from(removed).unwrap_or(i64::MAX),
            due.bytes
        )
        .execute(&mut *transaction)
        .await?;
        let event = NewEvent {
            kind: "instances_removed",
            series_id: Some(series_id),
            job_id: due.job_id,
            actor,
            detail: json!({"instances": removed, "bytes": due.bytes, "after": due.ended}),
            ..NewEvent::default()
        };
        append(&mut transaction, event).await?;
        fold_in(&mut transaction, series_id).await?;
        transaction.commit().await?;
        Ok(Some(files))
    }
}
