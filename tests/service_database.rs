//! The private database is killed, or its disk is full, while series come in, jobs run and results go to a real Orthanc: nothing that was acknowledged is lost, nothing is
//! done twice, no file is nobody's, and all goes on by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod service_support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hilum::database::testing::scratch;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use service_support::held::{Known, known, no_file_is_nobodys, nothing_is_lost};
use service_support::{Orthanc, Service, WHOLE, eventually, files, ready, ready_without_pacs, thin_phantom};
use sqlx::{
    AssertSqlSafe, Column as _, Connection as _, Either, Executor as _, PgConnection, SqlSafeStr as _, Statement as _,
    TypeInfo as _,
};

/// How soon an upload is refused while the database is away.
const SOON: Duration = Duration::from_secs(10);

/// PostgreSQL's programs in a folder of the test's own, from which one may be missing for a while.
struct Programs {
    folder: PathBuf,
    postgres: PathBuf,
}

impl Programs {
    fn of(service: &mut Service) -> Programs {
        let path = std::env::var_os("PATH").unwrap();
        let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let debian = debian.map(|entry| entry.unwrap().path().join("bin"));
        let real = std::env::split_paths(&path)
            .chain(debian)
            .find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
            .expect("PostgreSQL is installed");
        let folder = service.folder.path().join("programs");
        std::fs::create_dir(&folder).unwrap();
        // The server may run under another user than we do.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        symlink(real.join("initdb").canonicalize().unwrap(), folder.join("initdb")).unwrap();
        service.with("HILUM_SERVICE__POSTGRES_FOLDER", folder.to_str().unwrap());
        let postgres = real.join("postgres").canonicalize().unwrap();
        let programs = Programs { folder, postgres };
        programs.there();
        programs
    }

    fn there(&self) {
        symlink(&self.postgres, self.folder.join("postgres")).unwrap();
    }

    fn gone(&self) {
        std::fs::remove_file(self.folder.join("postgres")).unwrap();
    }
}

/// kill -9 of the server of a service.
fn kill_database(service: &Service) {
    let file = std::fs::read_to_string(service.data().join("postgres/data/postmaster.pid")).unwrap();
    let pid = Pid::from_raw(file.lines().next().unwrap().parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

/// What `/readyz` says of a part.
async fn is_ready(service: &Service, part: &str) -> bool {
    let answer = service.ask(Method::GET, "/readyz").send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    answer[part].as_bool().unwrap()
}

/// An upload is refused, soon, and its sender is told when to come again.
async fn is_refused(service: &Service, slices: &[PathBuf], codes: &[&str]) {
    let asked = Instant::now();
    let refused = service.stow(&slices[..1], &WHOLE).await.unwrap();
    let status = refused.status().as_u16();
    assert!([503, 507].contains(&status), "{status}");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = refused.json().await.unwrap();
    assert!(codes.contains(&problem["code"].as_str().unwrap()), "{problem}");
}

/// An upload is taken, at once or after some tries.
async fn is_taken(service: &Service, slices: &[PathBuf]) {
    eventually("an upload to be taken", || async {
        // One that is refused before its body is read may break off as well.
        let answer = service.stow(slices, &WHOLE).await.ok()?;
        (answer.status() == 200).then_some(())
    })
    .await;
}

/// The private database of a service.
fn private_url(service: &Service) -> String {
    let sockets = service.data().join("postgres/socket").display().to_string();
    format!("postgres://hilum@{}:5432/hilum", sockets.replace('/', "%2F"))
}

/// Every series that was acknowledged has its slices and one finished job with one folder of results.
async fn is_whole(service: &Service, sent: &BTreeSet<Known>) -> Vec<Value> {
    let series: BTreeSet<&str> = sent.iter().map(|(series, ..)| series.as_str()).collect();
    let jobs = service.jobs_over(series.len()).await;
    assert_eq!(jobs.len(), series.len(), "{jobs:?}");
    for job in &jobs {
        assert_eq!(job["state"], "done", "{job}");
        let slices = sent
            .iter()
            .filter(|(series, ..)| job["series"]["series_uid"] == **series);
        assert_eq!(job["series"]["instances"], slices.count(), "{job}");
        let results = service.data().join("results").join(job["id"].as_str().unwrap());
        // An attempt whose lease was lost meanwhile cleans up after itself.
        eventually("one folder of results", || async {
            (files(&results).len() == 1).then_some(())
        })
        .await;
    }
    nothing_is_lost(&private_url(service), &service.data().join("inbox"), sent).await;
    service.has_not_panicked();
    jobs
}

/// The same, and Orthanc holds the segmentation of each job, byte for byte, and no other.
async fn is_whole_beside(service: &Service, orthanc: &Orthanc, sent: &BTreeSet<Known>) {
    let mut made = BTreeSet::new();
    for job in is_whole(service, sent).await {
        let id = job["id"].as_str().unwrap();
        let uid = service.delivered(id).await["segmentation_uid"]
            .as_str()
            .unwrap()
            .to_owned();
        let result = service.get(&format!("/api/v1/jobs/{id}/result/segmentation.dcm")).await;
        assert_eq!(
            result.unwrap().bytes().await.unwrap(),
            orthanc.instance(&uid).await,
            "{uid}"
        );
        made.insert(uid);
    }
    let held = orthanc.segmentations().await;
    assert_eq!(held.len(), made.len(), "{held:?}");
    assert_eq!(held.into_iter().map(|(_, uid)| uid).collect::<BTreeSet<_>>(), made);
}

/// A new start sweeps, and then no file is nobody's; the service is ended.
async fn is_clean(service: &mut Service) {
    assert!(service.end(), "{}", service.log());
    service.up().await;
    no_file_is_nobodys(&private_url(service), service).await;
    assert!(service.end(), "{}", service.log());
    assert!(!service.data().join("postgres/data/postmaster.pid").exists());
}

#[tokio::test]
async fn a_database_that_is_killed_is_started_again_and_nothing_acknowledged_is_lost() {
    if !ready() {
        return;
    }
    let mut service = Service::new(None);
    let orthanc = Orthanc::start(None).await;
    service.beside(&orthanc, "");
    let programs = Programs::of(&mut service);
    service.up().await;
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = [21, 22].map(|seed| thin_phantom(&folder.path().join(seed.to_string()), seed));
    assert_eq!(service.stow(&first, &WHOLE).await.unwrap().status(), 200);
    eventually("a running job", || async {
        let jobs = service.jobs().await;
        jobs.iter().any(|job| job["state"] == "running").then_some(())
    })
    .await;
    // So that it stays away until we have seen what is answered meanwhile.
    programs.gone();
    kill_database(&service);
    eventually("the database to be away", || async {
        (!is_ready(&service, "database").await).then_some(())
    })
    .await;
    is_refused(&service, &second, &["database"]).await;
    assert!(service.get("/healthz").await.is_some());
    programs.there();
    is_taken(&service, &second).await;
    let mut sent = known(&first);
    sent.extend(known(&second));
    is_whole_beside(&service, &orthanc, &sent).await;
    // And once more, without anybody in its way.
    kill_database(&service);
    let third = thin_phantom(&folder.path().join("23"), 23);
    is_taken(&service, &third).await;
    sent.extend(known(&third));
    is_whole_beside(&service, &orthanc, &sent).await;
    is_clean(&mut service).await;
}

#[tokio::test]
async fn a_copy_of_the_data_folder_is_the_backup_of_a_service_with_a_private_database() {
    if !ready_without_pacs() {
        return;
    }
    let mut service = Service::new(None);
    service.up().await;
    let folder = tempfile::tempdir().unwrap();
    let first = thin_phantom(&folder.path().join("41"), 41);
    is_taken(&service, &first).await;
    let mut sent = known(&first);
    let id = is_whole(&service, &sent).await[0]["id"].as_str().unwrap().to_owned();
    let kept = async |service: &Service| {
        let job = eventually("the decision on its deliveries", || async {
            let job = service.json(&format!("/api/v1/jobs/{id}")).await?;
            (!job["withheld"].as_array()?.is_empty()).then_some(job)
        })
        .await;
        let result = service.get(&format!("/api/v1/jobs/{id}/result/segmentation.dcm")).await;
        (job, result.unwrap().bytes().await.unwrap())
    };
    let before = kept(&service).await;
    assert!(service.end(), "{}", service.log());
    // As docs/service.md says: stopped, copied, started elsewhere; the old place is gone.
    let mut restored = Service::new(None);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(service.data())
        .arg(restored.data())
        .status();
    assert!(copied.unwrap().success());
    std::fs::remove_dir_all(service.data()).unwrap();
    restored.up().await;
    assert_eq!(kept(&restored).await, before);
    is_whole(&restored, &sent).await;
    // The slices are known, and what comes now is worked on.
    is_taken(&restored, &first).await;
    let second = thin_phantom(&folder.path().join("42"), 42);
    is_taken(&restored, &second).await;
    sent.extend(known(&second));
    is_whole(&restored, &sent).await;
    assert!(restored.end(), "{}", restored.log());
}

/// Whether this process may mount: CAP_SYS_ADMIN, number 21 of capabilities(7).
fn may_mount() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(capabilities.trim(), 16).unwrap() >> 21 & 1 == 1
}

/// A disk in memory in place of a folder.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// `None`, and said: it cannot be mounted here. In CI that is a failure, but where we may mount nothing at all.
    fn mount(folder: &Path, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(folder).unwrap();
        let options = format!("size={size},mode=0711");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "hilum-test"])
            .arg(folder)
            .output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            let folder = folder.to_owned();
            return Some(SmallDisk { folder });
        }
        assert!(
            std::env::var_os("CI").is_none() || !may_mount(),
            "a small disk in memory cannot be mounted"
        );
        println!("skipped: a small disk in memory cannot be mounted here (it takes root)");
        None
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.folder).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Fills it until so many bytes are free.
    fn fill(&self, but: u64) {
        let mut filler = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("filler"))
            .unwrap();
        while self.free() > but {
            let piece = (self.free() - but).min(1 << 20) as usize;
            if filler.write_all(&vec![1; piece]).is_err() {
                break;
            }
        }
    }

    fn clear(&self) {
        std::fs::remove_file(self.folder.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

/// Lets the database write until it cannot any more.
async fn exhaust_database(service: &Service, disk: &SmallDisk) {
    let mut connection = PgConnection::connect(&private_url(service)).await.unwrap();
    for _ in 0..400 {
        disk.fill(0);
        let written = sqlx::query("select pg_logical_emit_message(true, 'test', repeat('x', 1000000))");
        if written.execute(&mut connection).await.is_err() {
            return;
        }
    }
    panic!("the database still writes: {} bytes are free", disk.free());
}

#[tokio::test]
async fn a_full_disk_refuses_uploads_loses_nothing_and_all_goes_on_when_there_is_space() {
    if !ready() {
        return;
    }
    let mut service = Service::new(None);
    let Some(disk) = SmallDisk::mount(&service.data(), "400m") else {
        return;
    };
    let orthanc = Orthanc::start(None).await;
    service.beside(&orthanc, "");
    service.with("HILUM_INBOX__DISK_RESERVE_BYTES", "60000000");
    service.up().await;
    let folder = tempfile::tempdir().unwrap();
    let series = [31, 32, 33, 34].map(|seed| thin_phantom(&folder.path().join(seed.to_string()), seed));
    is_taken(&service, &series[0]).await;
    let mut sent = known(&series[0]);
    // The reserve of the database is left alone.
    disk.fill(50_000_000);
    is_refused(&service, &series[1], &["disk_full"]).await;
    assert!(!is_ready(&service, "disk").await);
    disk.clear();
    is_taken(&service, &series[1]).await;
    sent.extend(known(&series[1]));
    is_whole_beside(&service, &orthanc, &sent).await;
    assert!(service.end(), "{}", service.log());
    // Without a reserve the disk is full to its last byte, for the database as well.
    service.with("HILUM_INBOX__DISK_RESERVE_BYTES", "0");
    service.up().await;
    is_taken(&service, &series[2]).await;
    disk.fill(0);
    is_refused(&service, &series[3], &["disk_full", "database"]).await;
    exhaust_database(&service, &disk).await;
    is_refused(&service, &series[3], &["disk_full", "database"]).await;
    disk.clear();
    is_taken(&service, &series[3]).await;
    sent.extend(series[2..].iter().flat_map(|slices| known(slices)));
    is_whole_beside(&service, &orthanc, &sent).await;
    is_clean(&mut service).await;
}

/// `hilum migrate` over a database, beside a data folder of its own.
fn migrate(url: Option<&str>, data: &Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
    command.arg("migrate").env_remove("DATABASE_URL");
    command.env("HILUM_SERVICE__DATA_FOLDER", data);
    if let Some(url) = url {
        command.env("DATABASE_URL", url);
    }
    command.output().unwrap()
}

#[tokio::test]
async fn hilum_migrate_makes_the_tables_and_changes_nothing_that_a_newer_version_made() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|database, url| async move {
        let folder = tempfile::tempdir().unwrap();
        let mut admin = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("drop schema public cascade; create schema public")
            .execute(&mut admin)
            .await
            .unwrap();
        let done = migrate(Some(&url), folder.path());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let made = "select count(*) from _sqlx_migrations where success";
        let made: i64 = sqlx::query_scalar(made).fetch_one(&mut admin).await.unwrap();
        let known = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).unwrap();
        assert_eq!(made, i64::try_from(known.count()).unwrap());
        assert_eq!(database.held_instances(1).await.unwrap(), []);
        // As a newer version leaves it: an older one that starts again beside it goes on.
        sqlx::query(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'later', true, 'x', 1)",
        )
        .execute(&mut admin)
        .await
        .unwrap();
        database.migrate().await.unwrap();
        assert!(migrate(Some(&url), folder.path()).status.success());
        let later = "select count(*) from _sqlx_migrations where version = 9999";
        let later: i64 = sqlx::query_scalar(later).fetch_one(&mut admin).await.unwrap();
        assert_eq!(later, 1);
        admin.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn hilum_migrate_beside_a_running_private_database_is_refused_and_says_what_to_do() {
    if !ready_without_pacs() {
        return;
    }
    let mut service = Service::new(None);
    service.only("receive");
    service.up().await;
    let refused = migrate(None, &service.data());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("DATABASE_URL"), "{said}");
    assert!(service.get("/healthz").await.is_some());
    assert!(service.end(), "{}", service.log());
}

/// A statement that an earlier version prepares, with the types that it was compiled for.
#[derive(serde::Deserialize)]
struct Earlier {
    statement: String,
    parameters: Vec<String>,
    columns: Vec<(String, String)>,
}

#[tokio::test]
async fn an_earlier_version_that_runs_on_beside_the_newest_tables_is_answered_as_it_expects() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
        let earlier = std::fs::read(goldens.join("earlier_statements.json")).unwrap();
        let earlier: Vec<Earlier> = serde_json::from_slice(&earlier).unwrap();
        assert!(earlier.len() > 20);
        let mut connection = PgConnection::connect(&url).await.unwrap();
        for one in earlier {
            let prepared = connection
                .prepare(AssertSqlSafe(one.statement.clone()).into_sql_str())
                .await;
            let prepared = prepared.unwrap_or_else(|error| panic!("{error}: {}", one.statement));
            let Some(Either::Left(parameters)) = prepared.parameters() else {
                panic!("no types of the parameters of {}", one.statement);
            };
            let parameters: Vec<String> = parameters.iter().map(|one| one.name().to_lowercase()).collect();
            assert_eq!(parameters, one.parameters, "{}", one.statement);
            let columns = prepared.columns().iter();
            let columns: Vec<_> = columns
                .map(|column| (column.name().to_owned(), column.type_info().name().to_lowercase()))
                .collect();
            assert_eq!(columns, one.columns, "{}", one.statement);
        }
        connection.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_a_migration_adds_to_a_table_asks_nothing_of_an_earlier_version_that_writes_rows() {
    if !ready_without_pacs() {
        return;
    }
    scratch(|_, url| async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        connection.execute("drop schema public cascade; create schema public").await.unwrap();
        let migrations = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations"));
        let columns = "select table_name::text, column_name::text, is_nullable = 'YES' or column_default is not null or is_identity = 'YES'
                       from information_schema.columns where table_schema = 'public'";
        let mut of_earlier: BTreeSet<(String, String)> = BTreeSet::new();
        let mut added = 0;
        for migration in &migrations {
            let statements = std::fs::read_to_string(migration).unwrap();
            connection.execute(AssertSqlSafe(statements).into_sql_str()).await.unwrap();
            let now: Vec<(String, String, bool)> = sqlx::query_as(columns).fetch_all(&mut connection).await.unwrap();
            let tables: BTreeSet<String> = of_earlier.iter().map(|(table, _)| table.clone()).collect();
            for (table, column, may_be_left_out) in &now {
                if tables.contains(table) && !of_earlier.contains(&(table.clone(), column.clone())) {
                    added += 1;
                    assert!(may_be_left_out, "{table}.{column} of {}", migration.display());
                }
            }
            let now: BTreeSet<_> = now.into_iter().map(|(table, column, _)| (table, column)).collect();
            let gone: Vec<_> = of_earlier.difference(&now).collect();
            assert!(gone.is_empty(), "{} takes {gone:?} away", migration.display());
            of_earlier = now;
        }
        assert!(added >= 3, "{added} columns were added");
        connection.close().await.unwrap();
    })
    .await;
}
