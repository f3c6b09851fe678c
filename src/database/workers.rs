//! The processes that work, and when each was last heard of.

use super::{Database, DatabaseError};

impl Database {
    /// Says that a worker of this host lives. A host is a machine since its last start.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn worker_lives(&self, worker: &str, host: &str) -> Result<(), DatabaseError> {
        sqlx::query!(
            "insert into worker (id, host) values ($1, $2) on conflict (id) do update set seen_at = now()",
            worker,
            host
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Forgets workers that were not heard of for a week.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn forget_workers(&self) -> Result<(), DatabaseError> {
        sqlx::query!("delete from worker where seen_at < now() - interval '7 days'")
            .execute(self.pool())
            .await?;
        Ok(())
    }
}
