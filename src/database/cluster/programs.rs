//! What stands around the server: PostgreSQL's programs and their version, its user and folders, a cluster that is made, a server that is launched.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::process::{Pid, test_kill_process};

use super::{ClusterError, NAME, OtherVersion, PORT};

/// Longest path of a socket that the system takes, less the name of PostgreSQL's.
const SOCKET_FOLDER_LIMIT: usize = 107 - "/.s.PGSQL.5432.lock".len();

/// The user under which the server runs, where that is not ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

pub(super) fn io_error(path: &Path, error: io::Error) -> ClusterError {
    ClusterError::Io {
        path: path.to_owned(),
        error,
    }
}

/// The folder that holds `postgres` and `initdb`; of several versions the newest.
pub(super) fn find_programs(named: &Path) -> Result<PathBuf, ClusterError> {
    let has = |folder: &Path| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    if !named.as_os_str().is_empty() {
        return if has(named) {
            Ok(named.to_owned())
        } else {
            Err(ClusterError::NoPrograms(format!("not in {}", named.display())))
        };
    }
    let mut places: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    places.extend(versions.into_iter().map(|(_, folder)| folder));
    places.push(PathBuf::from("/usr/pgsql/bin"));
    places.push(PathBuf::from("/opt/homebrew/bin"));
    places
        .into_iter()
        .find(|folder| has(folder))
        .ok_or_else(|| ClusterError::NoPrograms("neither in PATH nor in /usr/lib/postgresql".into()))
}

/// Where we are root, the user `postgres`.
pub(super) fn server_user() -> Result<Option<ServerUser>, ClusterError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let path = Path::new("/etc/passwd");
    let users = fs::read_to_string(path).map_err(|error| io_error(path, error))?;
    let numbers = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        Some(ServerUser {
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
        })
    };
    users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .and_then(numbers)
        .map(Some)
        .ok_or(ClusterError::NoUser)
}

pub(super) fn permit(path: &Path, mode: u32) -> Result<(), ClusterError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| io_error(path, error))
}

/// A folder that only its owner can enter.
pub(super) fn make_folder(path: &Path, user: Option<ServerUser>) -> Result<(), ClusterError> {
    fs::create_dir_all(path).map_err(|error| io_error(path, error))?;
    if let Some(user) = user {
        chown(path, Some(user.uid), Some(user.gid)).map_err(|error| io_error(path, error))?;
    }
    permit(path, 0o700)
}

/// The folder of the socket, which only its owner can enter. It may lie where everybody can make one first: a link, and what belongs to neither us nor the server's
/// user, is left as it is.
///
/// # Errors
/// [`ClusterError::Foreign`], and those of the file system.
pub(super) fn make_socket_folder(path: &Path, user: Option<ServerUser>) -> Result<(), ClusterError> {
    let failed = |error: io::Error| io_error(path, error);
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    // Opened once, so that what is looked at is what is changed.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match open(path, flags, Mode::empty()) {
        Ok(folder) => File::from(folder),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP | rustix::io::Errno::ACCESS) => {
            return Err(ClusterError::Foreign(path.to_owned()));
        }
        Err(error) => return Err(failed(error.into())),
    };
    let owner = folder.metadata().map_err(failed)?.uid();
    if owner != rustix::process::geteuid().as_raw() && user.is_none_or(|user| owner != user.uid) {
        return Err(ClusterError::Foreign(path.to_owned()));
    }
    if let Some(user) = user {
        fchown(&folder, Some(user.uid), Some(user.gid)).map_err(failed)?;
    }
    folder.set_permissions(Permissions::from_mode(0o700)).map_err(failed)
}

pub(super) fn lock(folder: &Path) -> Result<File, ClusterError> {
    let path = folder.join("postgres.lock");
    let file = File::create(&path).map_err(|error| io_error(&path, error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| ClusterError::InUse(folder.to_owned()))?;
    Ok(file)
}

/// Beside the cluster, or, where that path is too long for a socket, in the system's folder for temporary files under a name made of it.
pub(super) fn socket_folder(home: &Path) -> PathBuf {
    let beside = home.join("socket");
    if beside.as_os_str().len() <= SOCKET_FOLDER_LIMIT {
        return beside;
    }
    let digest = crate::dicom::derived_uid(home.as_os_str().as_encoded_bytes());
    std::env::temp_dir().join(format!("hilum-{digest}"))
}

/// A program of PostgreSQL under its user, with nothing of our environment but what it needs.
fn command(program: &Path, user: Option<ServerUser>, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command.current_dir(home);
    command
}

fn run(program: &'static str, command: &mut Command) -> Result<String, ClusterError> {
    let failed = |why| ClusterError::Program { program, why };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The major version of the programs must be that of the cluster.
pub(super) fn check_version(
    data: &Path,
    programs: &Path,
    sockets: &Path,
    user: Option<ServerUser>,
) -> Result<(), ClusterError> {
    let Ok(made_by) = fs::read_to_string(data.join("PG_VERSION")) else {
        return Ok(());
    };
    let made_by = made_by.trim().to_owned();
    let said = run("postgres", Command::new(programs.join("postgres")).arg("--version"))?;
    let version = said
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let major = version
        .and_then(|version| version.split('.').next())
        .unwrap_or_default();
    if major == made_by {
        return Ok(());
    }
    let old_programs = PathBuf::from(format!("/usr/lib/postgresql/{made_by}/bin"));
    // What stands in PATH may be a link to `postgres` alone; beside the program itself are all the others.
    let itself = programs.join("postgres").canonicalize().ok();
    let programs = itself.as_deref().and_then(Path::parent).unwrap_or(programs);
    Err(ClusterError::OtherVersion(Box::new(OtherVersion {
        data: data.to_owned(),
        programs: programs.to_owned(),
        installed: version.unwrap_or("another version").to_owned(),
        by: if user.is_some() {
            "root"
        } else {
            "the user that Hilum runs as"
        },
        lines: move_lines(data, [&old_programs, programs], sockets, &made_by, user.is_some()),
        old_programs,
        made_by,
    })))
}

/// The lines for a shell that move a cluster to another version: the old server starts on our socket and gives its data out, the new one takes them. Each is tied to the next, so that
/// nothing goes on after a failure; what is there is moved aside and not removed.
fn move_lines(data: &Path, [old, new]: [&Path; 2], sockets: &Path, made_by: &str, root: bool) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    // As the server runs: it refuses root, and its role knows only the users of `pg_ident.conf`.
    let run = if root {
        "setpriv --reuid=postgres --regid=postgres --init-groups "
    } else {
        ""
    };
    let home = data.parent().unwrap_or(data);
    let (aside, dump, log) = (
        data.with_extension(made_by),
        home.join("hilum.sql"),
        home.join("move.log"),
    );
    let (data, aside, dump, log) = (quoted(data), quoted(&aside), quoted(&dump), quoted(&log));
    let (old, new, sockets) = (quoted(old), quoted(new), quoted(sockets));
    let reached = format!("-h {sockets} -p {PORT} -U {NAME}");
    let start = format!(
        "-w -D {data} -l {log} -o \"-c listen_addresses= -c unix_socket_directories={sockets} -p {PORT}\" start"
    );
    let lines = [
        format!("cd {}", quoted(home)),
        format!("{run}{old}/pg_ctl {start}"),
        format!("{run}{old}/pg_dump {reached} -f {dump} {NAME}"),
        format!("{run}{old}/pg_ctl -w -D {data} stop"),
        format!("mv {data} {aside}"),
        format!("{run}{new}/initdb -D {data} -U {NAME} -A peer -E UTF8 --locale=C.UTF-8"),
        format!("cp -p {aside}/pg_hba.conf {aside}/pg_ident.conf {data}"),
        format!("{run}{new}/pg_ctl {start}"),
        format!("{run}{new}/createdb {reached} {NAME}"),
        format!("{run}{new}/psql {reached} -q -v ON_ERROR_STOP=1 -f {dump} {NAME}"),
        format!("{run}{new}/pg_ctl -w -D {data} stop"),
    ];
    format!("  {}", lines.join(" &&\n  "))
}

/// Makes the cluster whole or not at all: under another name, then renamed.
pub(super) fn make_cluster(data: &Path, programs: &Path, user: Option<ServerUser>) -> Result<(), ClusterError> {
    let home = data.parent().unwrap_or(data);
    let unfinished = home.join("data.part");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|error| io_error(&unfinished, error))?;
    }
    let mut initdb = command(&programs.join("initdb"), user, home);
    initdb.arg("-D").arg(&unfinished);
    initdb.args(["-U", NAME, "-A", "peer", "-E", "UTF8", "--locale=C.UTF-8"]);
    run("initdb", &mut initdb).map_err(|error| match error {
        ClusterError::Program { why, .. } if why.contains("ermission denied") => ClusterError::NoEntry(home.to_owned()),
        other => other,
    })?;
    // Only we, and the server's own user, are the role hilum.
    let mut names = vec![user_name(rustix::process::geteuid().as_raw())];
    if let Some(user) = user {
        names.push(user_name(user.uid));
    }
    let map: String = names.iter().map(|name| format!("hilum {name} {NAME}\n")).collect();
    for (file, text) in [
        ("pg_ident.conf", map),
        ("pg_hba.conf", format!("local all {NAME} peer map=hilum\n")),
    ] {
        let path = unfinished.join(file);
        fs::write(&path, text).map_err(|error| io_error(&path, error))?;
    }
    fs::rename(&unfinished, data).map_err(|error| io_error(data, error))
}

/// A user's name in the system's list, or its number.
fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    users
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == number).then(|| name.to_owned())
        })
        .unwrap_or(number)
}

pub(super) fn launch(
    data: &Path,
    sockets: &Path,
    programs: &Path,
    log: &Path,
    user: Option<ServerUser>,
) -> Result<Child, ClusterError> {
    forget_stranger(data)?;
    let home = data.parent().unwrap_or(data);
    let out = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| io_error(log, error))?;
    let err = out.try_clone().map_err(|error| io_error(log, error))?;
    let mut postgres = command(&programs.join("postgres"), user, home);
    postgres.arg("-D").arg(data);
    for setting in [
        "listen_addresses=".to_owned(),
        format!("unix_socket_directories={}", sockets.display()),
        "unix_socket_permissions=0700".to_owned(),
        format!("port={PORT}"),
        "log_timezone=UTC".to_owned(),
        "timezone=UTC".to_owned(),
    ] {
        postgres.arg("-c").arg(setting);
    }
    // A process group of its own: Ctrl-C is for us, who stop it in order.
    postgres.stdout(out).stderr(err).process_group(0);
    postgres.spawn().map_err(|error| ClusterError::Program {
        program: "postgres",
        why: error.to_string(),
    })
}

/// The server that runs on this cluster, by the first line of its `postmaster.pid`.
pub(super) fn running(data: &Path) -> Option<Pid> {
    let pid = named_process(data)?;
    let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).ok()?;
    (name.starts_with("postgres") && works_in(pid, data)?).then_some(pid)
}

/// Removes a `postmaster.pid` whose number is another process's now, as after the machine went down. PostgreSQL would take one of its own user for the server
/// of this cluster, and not start.
fn forget_stranger(data: &Path) -> Result<(), ClusterError> {
    if named_process(data).and_then(|pid| works_in(pid, data)) == Some(false) {
        let path = data.join("postmaster.pid");
        tracing::warn!(path = %path.display(), "the process that it names is no server of this cluster; it is removed");
        fs::remove_file(&path).map_err(|error| io_error(&path, error))?;
    }
    Ok(())
}

/// The living process that `postmaster.pid` names, whatever it is.
fn named_process(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
    test_kill_process(pid).ok()?;
    Some(pid)
}

/// Whether a process works in this folder, as a server does in the one of its data; `None` where the system does not tell.
fn works_in(pid: Pid, data: &Path) -> Option<bool> {
    let theirs = fs::metadata(format!("/proc/{}/cwd", pid.as_raw_nonzero())).ok()?;
    let ours = fs::metadata(data).ok()?;
    Some((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
}

pub(super) fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use super::*;

    /// Nobody's number.
    const STRANGER: u32 = 54_321;

    fn mode_and_owner(path: &Path) -> (u32, u32) {
        let found = fs::metadata(path).unwrap();
        (found.permissions().mode() & 0o777, found.uid())
    }

    #[test]
    fn a_socket_folder_that_is_a_link_or_somebody_elses_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let sockets = folder.path().join("sockets");
        let user = server_user().ok().flatten();
        let ours = user.map_or(rustix::process::geteuid().as_raw(), |user| user.uid);
        // Made, and taken again, whatever was done to its mode.
        for _ in 0..2 {
            make_socket_folder(&sockets, user).unwrap();
            assert_eq!(mode_and_owner(&sockets), (0o700, ours));
            permit(&sockets, 0o755).unwrap();
        }
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::create_dir(&target).unwrap();
        permit(&target, 0o755).unwrap();
        let before = mode_and_owner(&target);
        symlink(&target, &link).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for foreign in [&link, &file] {
            let refused = make_socket_folder(foreign, user).unwrap_err();
            assert!(matches!(refused, ClusterError::Foreign(_)), "{refused}");
        }
        assert_eq!(mode_and_owner(&target), before);
        if rustix::process::geteuid().is_root() {
            chown(&target, Some(STRANGER), None).unwrap();
            let refused = make_socket_folder(&target, user).unwrap_err();
            assert!(matches!(refused, ClusterError::Foreign(_)), "{refused}");
            assert_eq!(mode_and_owner(&target), (0o755, STRANGER));
        }
    }
}
