//! The private PostgreSQL cluster: made, stopped, started again, adopted, refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hilum::database::{ClusterError, Database, PrivateCluster};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Whether PostgreSQL is installed; in CI it has to be.
fn installed() -> bool {
    if Path::new("/usr/lib/postgresql").is_dir() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed");
    println!("skipped: PostgreSQL is not installed (make test installs it)");
    false
}

/// A folder that the server's user can pass through.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    folder
}

async fn start(folder: &TempDir) -> Result<PrivateCluster, ClusterError> {
    PrivateCluster::start(&folder.path().join("data"), Path::new("")).await
}

/// The number of the server's process, as its own file has it.
fn postmaster(folder: &TempDir) -> String {
    let file = fs::read_to_string(folder.path().join("data/postgres/data/postmaster.pid")).unwrap();
    file.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn it_keeps_what_was_committed_and_leaves_nothing_running() {
    if !installed() {
        return;
    }
    let folder = folder();
    let mut cluster = start(&folder).await.unwrap();
    let database = Database::connect(&cluster.url(), 2).await.unwrap();
    database.migrate().await.unwrap();
    database.worker_lives("w", "h").await.unwrap();
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("data/postgres/socket"), 0o700, "the socket is ours alone");
    assert_eq!(mode("data") & 0o067, 0, "nobody looks into the data folder");
    let who = fs::read_to_string(folder.path().join("data/postgres/data/pg_hba.conf")).unwrap();
    assert_eq!(
        who, "local all hilum peer map=hilum\n",
        "by the socket, as us, and in no other way"
    );
    database.close().await;
    cluster.stop();
    assert!(!folder.path().join("data/postgres/data/postmaster.pid").exists());
    drop(cluster);

    let again = start(&folder).await.unwrap();
    let database = Database::connect(&again.url(), 2).await.unwrap();
    database.migrate().await.unwrap();
    database.close().await;
}

#[tokio::test]
async fn a_second_one_over_the_same_folder_is_refused_and_says_what_to_do() {
    if !installed() {
        return;
    }
    let folder = folder();
    let _first = start(&folder).await.unwrap();
    let second = start(&folder).await.unwrap_err();
    assert!(second.to_string().contains("DATABASE_URL"), "{second}");
}

#[tokio::test]
async fn a_server_that_survived_is_adopted_and_ended() {
    if !installed() {
        return;
    }
    let folder = folder();
    let first = start(&folder).await.unwrap();
    let pid_file = folder.path().join("data/postgres/data/postmaster.pid");
    let pid = postmaster(&folder);
    // Its owner is gone without a word: the lock falls, the server stays.
    first.abandon();
    let mut second = start(&folder).await.unwrap();
    assert_eq!(postmaster(&folder), pid);
    second.stop();
    assert!(!pid_file.exists());
}

#[tokio::test]
async fn a_server_that_survived_and_is_about_to_end_is_followed_by_a_new_one() {
    if !installed() {
        return;
    }
    let folder = folder();
    let first = start(&folder).await.unwrap();
    let pid = postmaster(&folder);
    // Told to end, it waits for its client and lets nobody else in.
    let client = PgConnection::connect(&first.url()).await.unwrap();
    first.abandon();
    let postgres = Pid::from_raw(pid.parse().unwrap()).unwrap();
    kill_process(postgres, Signal::TERM).unwrap();
    let later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.close().await.unwrap();
    };
    let (second, ()) = tokio::join!(start(&folder), later);
    let mut second = second.unwrap();
    assert_ne!(postmaster(&folder), pid);
    assert!(PgConnection::connect(&second.url()).await.is_ok());
    second.stop();
}

#[tokio::test]
async fn a_number_that_is_another_servers_now_is_left_alone_and_our_own_starts() {
    if !installed() {
        return;
    }
    let (folder, other) = (folder(), folder());
    drop(start(&folder).await.unwrap());
    let others = start(&other).await.unwrap();
    let pid = fs::read_to_string(other.path().join("data/postgres/data/postmaster.pid")).unwrap();
    let pid_file = folder.path().join("data/postgres/data/postmaster.pid");
    // As after a machine went down: the number that our server had is the other one's.
    fs::write(&pid_file, &pid).unwrap();
    fs::set_permissions(&pid_file, fs::Permissions::from_mode(0o644)).unwrap();
    let mut cluster = start(&folder).await.unwrap();
    let ours = fs::read_to_string(&pid_file).unwrap();
    assert_ne!(ours.lines().next(), pid.lines().next());
    Database::connect(&cluster.url(), 1).await.unwrap().close().await;
    cluster.stop();
    assert!(!pid_file.exists());
    // Nobody asked the other one to end.
    let database = Database::connect(&others.url(), 1).await.unwrap();
    database.close().await;
    let log = fs::read_to_string(other.path().join("data/postgres/log")).unwrap();
    assert!(!log.contains("shutdown request"), "{log}");
}

#[tokio::test]
async fn a_number_that_is_another_programs_now_keeps_nothing_from_starting() {
    if !installed() {
        return;
    }
    let folder = folder();
    drop(start(&folder).await.unwrap());
    let pid_file = folder.path().join("data/postgres/data/postmaster.pid");
    for name in ["postgres", "other"] {
        let program = folder.path().join(name);
        // The system calls a process by the name that it is started by.
        symlink("/bin/sleep", &program).unwrap();
        let mut other = Command::new(&program).arg("1000").spawn().unwrap();
        fs::write(&pid_file, format!("{}\n", other.id())).unwrap();
        let started = start(&folder).await.map(|mut cluster| cluster.stop());
        let ended = other.try_wait().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(ended, None, "{name} was signalled");
        started.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_killed_is_started_again_adopted_or_not() {
    if !installed() {
        return;
    }
    let folder = folder();
    start(&folder).await.unwrap().abandon();
    let cluster = start(&folder).await.unwrap();
    let url = cluster.url();
    let pid = || {
        let file = fs::read_to_string(folder.path().join("data/postgres/data/postmaster.pid")).unwrap_or_default();
        file.lines().next().and_then(|pid| pid.parse::<i32>().ok())
    };
    let ends = CancellationToken::new();
    let kept = tokio::spawn(cluster.keep(ends.clone()));
    // The first one was adopted, the second one is a child.
    for _ in 0..2 {
        let killed = pid().unwrap();
        kill_process(Pid::from_raw(killed).unwrap(), Signal::KILL).unwrap();
        let begun = Instant::now();
        while pid().is_none_or(|pid| pid == killed) || Database::connect(&url, 1).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it stays away");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    ends.cancel();
    kept.await.unwrap().stop();
    assert_eq!(pid(), None);
}

#[tokio::test]
async fn a_cluster_of_another_version_is_left_alone_and_the_printed_lines_move_it() {
    if !installed() {
        return;
    }
    let folder = folder();
    let cluster = start(&folder).await.unwrap();
    let database = Database::connect(&cluster.url(), 1).await.unwrap();
    database.migrate().await.unwrap();
    let kept = "insert into series (study_uid, series_uid) values ('1.2', '1.3')";
    let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
    sqlx::query(kept).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    database.close().await;
    drop(cluster);
    let home = folder.path().join("data/postgres");
    let version = home.join("data/PG_VERSION");
    let installed = fs::read_to_string(&version).unwrap();
    fs::write(&version, "9\n").unwrap();
    let error = start(&folder).await.unwrap_err().to_string();
    assert!(error.contains("made by PostgreSQL 9"), "{error}");
    assert!(error.contains("apt-get install postgresql-9"), "{error}");
    fs::write(&version, &installed).unwrap();

    // The old version is not here: its programs are those that are. All else is as it is printed.
    let programs = error
        .split("the programs in ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("  ")).collect();
    assert_eq!(lines.len(), 11, "{error}");
    let lines = lines.join("\n").replace("/usr/lib/postgresql/9/bin", programs);
    let moved = Command::new("sh").args(["-c", &lines]).output().unwrap();
    assert!(
        moved.status.success(),
        "{lines}\n{}",
        String::from_utf8_lossy(&moved.stderr)
    );
    assert!(
        home.join("data.9/PG_VERSION").is_file(),
        "what was there is moved aside"
    );

    let cluster = start(&folder).await.unwrap();
    let database = Database::connect(&cluster.url(), 1).await.unwrap();
    database.migrate().await.unwrap();
    database.close().await;
    let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
    let series: i64 = sqlx::query_scalar("select count(*) from series where series_uid = '1.3'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(series, 1);
    connection.close().await.unwrap();
}

#[tokio::test]
async fn missing_programs_are_named() {
    let folder = folder();
    let error = PrivateCluster::start(&folder.path().join("data"), Path::new("/nowhere"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nowhere") && error.contains("apt-get install postgresql"),
        "{error}"
    );
}
