//! What scripts/setup.sh does to a machine's Orthanc and PostgreSQL.

use std::fs;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::text;

/// The part of scripts/setup.sh that brings the servers, run by a user who is not root on a machine of stubs, where nothing is installed: the commands that it gives as root,
/// and whether it ended well. `places` are texts of the script to be put in place of others.
fn servers_set_up(places: &[(&str, &str)]) -> (bool, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (systemd, postgresql) = (at("systemd"), at("postgresql-common"));
    fs::create_dir(&systemd).unwrap();
    let log = at("log");
    let stub = |name: &str, script: &str| {
        let path = at(name);
        fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    stub("id", "echo 1000");
    stub(
        "sudo",
        &format!("echo \"$*\" >> {log}; [ \"$1\" != env ] || shift 2; exec \"$@\""),
    );
    stub("systemctl", "");
    stub("apt-get", "[ \"$1 ${APT_GET_FAILS:-}\" != 'install yes' ]");
    let script = text("scripts/setup.sh");
    let mut script = script.split("\ncommand -v cargo ").next().unwrap().to_owned() + "\nservers\n";
    let usual = [
        ("$(dirname \"$0\")/..", folder.path().to_str().unwrap()),
        ("/run/systemd/system", systemd.as_str()),
        ("/etc/postgresql-common", postgresql.as_str()),
        ("command -v initdb", "false"),
        ("/usr/lib/postgresql/", "/nonexistent/"),
    ];
    for (from, to) in places.iter().chain(&usual) {
        assert!(script.contains(from), "{from}");
        script = script.replace(from, to);
    }
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("PATH", path)
        .output()
        .unwrap();
    let commands = fs::read_to_string(&log).unwrap_or_default();
    (output.status.success(), commands.lines().map(str::to_owned).collect())
}

#[test]
fn an_orthanc_that_setup_installs_does_not_run_and_can_be_started() {
    const NONE: (&str, &str) = ("command -v Orthanc", "false");
    let (well, commands) = servers_set_up(&[NONE]);
    assert!(well);
    let install = commands
        .iter()
        .position(|one| one.ends_with(" orthanc orthanc-dicomweb"));
    let systemctl: Vec<(usize, &str)> = commands
        .iter()
        .enumerate()
        .filter(|(_, one)| one.starts_with("systemctl "))
        .map(|(at, one)| (at, one.as_str()))
        .collect();
    assert_eq!(
        systemctl.iter().map(|(_, one)| *one).collect::<Vec<_>>(),
        [
            "systemctl mask --quiet orthanc",
            "systemctl unmask --quiet orthanc",
            "systemctl disable --quiet orthanc"
        ]
    );
    let install = install.unwrap();
    assert!(systemctl[0].0 < install && install < systemctl[1].0, "{commands:?}");
    // PostgreSQL's own cluster is kept from starting by a user who is not root, too.
    assert!(
        commands
            .iter()
            .any(|one| one.starts_with("tee ") && one.ends_with("createcluster.conf"))
    );
    assert!(commands.iter().any(|one| one.ends_with(" postgresql")));
    // The mask goes where the installation fails.
    let failing = ("set -euo pipefail", "set -euo pipefail; export APT_GET_FAILS=yes");
    let (well, commands) = servers_set_up(&[NONE, failing]);
    assert!(!well);
    assert_eq!(commands.last().unwrap(), "systemctl unmask --quiet orthanc");
}

#[test]
fn an_orthanc_that_is_there_is_left_alone() {
    const THERE: (&str, &str) = ("command -v Orthanc", "true");
    const PLUGIN: &str = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so";
    let (well, commands) = servers_set_up(&[THERE, (PLUGIN, "/bin/sh")]);
    assert!(well);
    assert!(!commands.iter().any(|one| one.contains("orthanc")), "{commands:?}");
    // Its package would restart it for the plugin.
    let (well, commands) = servers_set_up(&[THERE, (PLUGIN, "/nonexistent/plugin.so")]);
    assert!(!well);
    assert_eq!(commands, Vec::<String>::new());
}

/// Runs the part of scripts/setup.sh that takes the library out of a wheel, where `pip download` brings one whose library holds `bytes` and the checksum
/// of `expected` is asked for: whether it ended well, what it said of a fault, and the files of its folder with their bytes.
fn library_taken(bytes: &str, expected: &str) -> (bool, String, Vec<(String, Vec<u8>)>) {
    let folder = tempfile::tempdir().unwrap();
    let pip = format!(
        "#!/bin/bash
if [ \"$3\" != download ]; then exec {python} \"$@\"; fi
while [ \"$1\" != --dest ]; do shift; done
cd \"$2\" && mkdir -p onnxruntime/capi && printf %s '{bytes}' > onnxruntime/capi/libonnxruntime.so.9.9
{python} -m zipfile -c some.whl onnxruntime/",
        python = "env PATH=\"$WHOLE_PATH\" python3",
    );
    let stub = folder.path().join("python3");
    fs::write(&stub, pip).unwrap();
    fs::set_permissions(&stub, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = text("scripts/setup.sh");
    let script = script.split("\ncommand -v cargo ").next().unwrap();
    let script = script.replace("$(dirname \"$0\")/..", folder.path().to_str().unwrap());
    let digest: String = Sha256::digest(expected)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let whole_path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-c", &format!("{script}\nlibrary .runtime 9.9 some_platform {digest}")])
        .env("PATH", format!("{}:{whole_path}", folder.path().display()))
        .env("WHOLE_PATH", &whole_path)
        .output()
        .unwrap();
    let files = fs::read_dir(folder.path().join(".runtime")).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (
            entry.file_name().into_string().unwrap(),
            fs::read(entry.path()).unwrap(),
        )
    });
    (
        output.status.success(),
        String::from_utf8(output.stderr).unwrap(),
        files.collect(),
    )
}

#[test]
fn a_library_is_taken_out_of_its_wheel_only_with_the_checksum_that_is_known() {
    let (well, said, files) = library_taken("the library", "the library");
    assert!(well, "{said}");
    assert_eq!(files, [("libonnxruntime.so.9.9".to_owned(), b"the library".to_vec())]);
    let (well, said, files) = library_taken("another library", "the library");
    assert!(!well);
    assert!(said.contains("another checksum than expected: not used"), "{said}");
    assert_eq!(files, []);
}
