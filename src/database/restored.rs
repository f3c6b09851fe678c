//! A database that was restored from a dump: its events name transactions of the server that it was dumped from, and those mean nothing on this one.
//!
//! Events are read in the order of (transaction, id) and below the oldest transaction that still runs. A server that is new begins to count anew, so that events of the old one
//! would stay hidden until it has counted as far, and then come as if they happened at that moment, between its own.

use super::{Database, DatabaseError};

/// Of all who look after a restored database at once, one does it.
const LOCK: i64 = 0x0068_696c_756d_0001;

impl Database {
    /// Puts the events of another server, where there are any, before all that this one appends: in the order of their ids, as transaction 0, which no server counts. What is
    /// noted as written to a PACS goes along. Returns how many events there were. Safe beside processes that append and read meanwhile: whoever reads on from a place of this
    /// server has what is new, and nothing twice.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) async fn adopt_events(&self) -> Result<u64, DatabaseError> {
        if self.foreign_event().await?.is_none() {
            return Ok(0);
        }
        let mut transaction = self.pool().begin().await?;
        sqlx::query!("select pg_advisory_xact_lock($1)", LOCK)
            .execute(&mut *transaction)
            .await?;
        // A dump is of one moment, and ids go on after it: up to the newest event that is foreign for certain, all are of the dump, those too whose number this server has
        // counted past already.
        let Some(newest) = sqlx::query_scalar!(
            "select max(id) from event where transaction >= pg_snapshot_xmax(pg_current_snapshot())"
        )
        .fetch_one(&mut *transaction)
        .await?
        else {
            return Ok(0);
        };
        // In the order of ids other events may stand after a place than in the order of transactions: none may be left out, some may be written again.
        sqlx::query!(
            "update marked set transaction = '0', event_id = coalesce(
                 (select min(event.id) - 1 from event
                  where (event.transaction, event.id) > (marked.transaction, marked.event_id) and event.id <= $1), event_id)
             where event_id <= $1",
            newest
        )
        .execute(&mut *transaction)
        .await?;
        let adopted = sqlx::query!(
            "update event set transaction = '0' where id <= $1 and transaction <> '0'",
            newest
        )
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        transaction.commit().await?;
        Ok(adopted)
    }

    /// An event that another server appended. What can be seen was appended by a transaction below the end of the snapshot (`pg_snapshot_xmax`), if it was this server's.
    async fn foreign_event(&self) -> Result<Option<i64>, DatabaseError> {
        // The last one in the order of the index, so that a long table is not read where there is none.
        Ok(sqlx::query_scalar!(
            "select id from event where transaction >= pg_snapshot_xmax(pg_current_snapshot()) order by transaction desc, id desc limit 1"
        )
        .fetch_optional(self.pool())
        .await?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Place;
    use super::super::testing::scratch;

    #[tokio::test]
    async fn events_of_another_server_stand_before_those_of_this_one_and_nothing_owed_to_a_pacs_is_lost() {
        scratch(|database, _| async move {
            // This server has counted past the first one already, and an older version appended the last one here.
            sqlx::raw_sql(
                "insert into event (id, transaction, kind, actor) overriding system value values
                     (1, '3', 'old', 't'), (2, '9000000002', 'old', 't'), (3, '9000000001', 'old', 't'), (4, '9000000003', 'old', 't');
                 insert into event (id, kind, actor) overriding system value values (5, 'new', 't');
                 insert into marked (pacs, transaction, event_id) values ('behind', '9000000001', 3), ('level', '9000000003', 4);
                 insert into marked (pacs, transaction, event_id) select 'here', transaction, id from event where id = 5",
            )
            .execute(database.pool())
            .await
            .unwrap();
            let places = async || {
                let events = database.events_after(Place::default(), None).await.unwrap();
                events.iter().map(|event| event.place).collect::<Vec<Place>>()
            };
            let shown = |places: &[Place]| places.iter().map(|place| place.id).collect::<Vec<i64>>();
            // Other tests on this server may hold the new one back for a moment.
            for _ in 0..400 {
                if places().await.len() > 1 {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            assert_eq!(shown(&places().await), [1, 5], "what is to be mended");
            let here = database.marked_up_to("here").await.unwrap().unwrap();

            assert_eq!(database.adopt_events().await.unwrap(), 4);
            assert_eq!(shown(&places().await), [1, 2, 3, 4, 5]);
            assert_eq!(places().await[4], here, "who reads on from a place of this server goes on");
            let marked = async |pacs| database.marked_up_to(pacs).await.unwrap().unwrap();
            let before = |id| Place { transaction: 0, id };
            // The second event came after the third in the order of transactions: it is not written there yet.
            assert_eq!(
                [marked("behind").await, marked("level").await, marked("here").await],
                [before(1), before(4), here]
            );
            assert_eq!(database.adopt_events().await.unwrap(), 0, "once is enough");
        })
        .await;
    }
}
