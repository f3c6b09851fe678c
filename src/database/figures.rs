//! Figures of the whole service, for its metrics, the queue and readiness.

use super::{Database, DatabaseError};

/// How the queue stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queue {
    /// Nothing new is begun.
    pub paused: bool,
    /// Jobs that wait.
    pub queued: i64,
    /// Jobs that run.
    pub running: i64,
    /// For how many seconds the job waits that was made, or wished for again, the longest ago. What an attempt that was given back took counts.
    pub oldest_seconds: f64,
    /// Workers that were seen within the last two minutes.
    pub workers: i64,
}

/// What the metrics tell of the database.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Series by state.
    pub series: Vec<(String, i64)>,
    /// Jobs by state.
    pub jobs: Vec<(String, i64)>,
    /// Deliveries by state.
    pub deliveries: Vec<(String, i64)>,
    /// For how many seconds the oldest series that is not settled has been arriving.
    pub oldest_open_series_seconds: f64,
    /// The queue.
    pub queue: Queue,
}

impl Database {
    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        sqlx::query_scalar!("select only_row from service")
            .fetch_one(self.pool())
            .await?;
        Ok(())
    }

    /// How the queue stands.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn queue(&self) -> Result<Queue, DatabaseError> {
        Ok(sqlx::query_as!(
            Queue,
            r#"select paused,
                (select count(*) from job where state = 'queued') as "queued!",
                (select count(*) from job where state = 'running') as "running!",
                coalesce((select extract(epoch from now() - min(coalesce(queued_again_at, created_at))) from job where state = 'queued'), 0)::float8 as "oldest_seconds!",
                (select count(*) from worker where seen_at > now() - interval '2 minutes') as "workers!"
            from service"#
        )
        .fetch_one(self.pool())
        .await?)
    }

    /// What the metrics tell. Reads whole tables of narrow rows: to be asked every few seconds at most.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn figures(&self) -> Result<Figures, DatabaseError> {
        let series = sqlx::query!(r#"select state::text as "state!", count(*) as "count!" from series group by state"#)
            .fetch_all(self.pool())
            .await?;
        let jobs = sqlx::query!(r#"select state::text as "state!", count(*) as "count!" from job group by state"#)
            .fetch_all(self.pool())
            .await?;
        let deliveries =
            sqlx::query!(r#"select state::text as "state!", count(*) as "count!" from delivery group by state"#)
                .fetch_all(self.pool())
                .await?;
        let oldest = sqlx::query_scalar!(
            r#"select coalesce(extract(epoch from now() - min(received_at)), 0)::float8 as "seconds!" from series where state = 'receiving'"#
        )
        .fetch_one(self.pool())
        .await?;
        Ok(Figures {
            series: series.into_iter().map(|row| (row.state, row.count)).collect(),
            jobs: jobs.into_iter().map(|row| (row.state, row.count)).collect(),
            deliveries: deliveries.into_iter().map(|row| (row.state, row.count)).collect(),
            oldest_open_series_seconds: oldest,
            queue: self.queue().await?,
        })
    }
}
