//! A database of its own for a test, dropped at its end.

use std::future::Future;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::Database;

/// Runs a test on a fresh database of the server that `HILUM_TEST_DATABASE_URL` names (`make test` sets it), and drops the database afterwards.
///
/// Without the variable the test says that it was skipped, or fails where `CI` is set.
///
/// # Panics
/// Where the server does not do as it is told: this is for tests.
#[expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "for tests: a skipped one says so, a broken server ends it"
)]
pub async fn scratch<F: Future<Output = ()>>(test: impl FnOnce(Database, String) -> F) {
    let Ok(server) = std::env::var("HILUM_TEST_DATABASE_URL") else {
        assert!(std::env::var_os("CI").is_none(), "HILUM_TEST_DATABASE_URL is not set");
        println!("skipped: HILUM_TEST_DATABASE_URL is not set (make test sets it)");
        return;
    };
    let name = format!("hilum_test_{}", uuid::Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(&server).await.expect("the test server answers");
    sqlx::query(AssertSqlSafe(format!("create database {name}")))
        .execute(&mut admin)
        .await
        .expect("a database can be made");
    let url = with_database(&server, &name);
    let database = Database::connect(&url, 8).await.expect("the new database answers");
    database.migrate().await.expect("migrations run");
    test(database.clone(), url).await;
    database.pool().close().await;
    sqlx::query(AssertSqlSafe(format!("drop database {name} with (force)")))
        .execute(&mut admin)
        .await
        .expect("the database can be dropped");
}

/// The same URL with another database: what stands between the last `/` before `?` and the `?`.
fn with_database(url: &str, name: &str) -> String {
    let (path, query) = url.split_once('?').map_or((url, ""), |(path, query)| (path, query));
    let base = path.rfind('/').map_or(path, |at| &path[..at]);
    let separator = if query.is_empty() { "" } else { "?" };
    format!("{base}/{name}{separator}{query}")
}
