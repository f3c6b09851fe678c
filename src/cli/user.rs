//! `hilum user add`: a password or token becomes the `[[user]]` block to paste into the configuration.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::{End, say};
use crate::config::the_known;
use crate::http::Role;

/// Shortest password that is taken.
const SHORTEST: usize = 8;
/// Longest name of a user.
const LONGEST_NAME: usize = 64;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommands {
    /// Print the [[user]] block of a new user; the password is read from standard input.
    Add(Add),
}

#[derive(Debug, clap::Args)]
struct Add {
    /// Name of the user: letters, digits, `_` and `-`.
    name: String,
    /// What the user may do; can be given several times.
    #[arg(long = "role", value_enum, required = true, value_name = "ROLE")]
    roles: Vec<Role>,
    /// Name of the [[pacs]] block that this user is: the series that it stores come from there, and their segmentations go back there.
    #[arg(long, value_name = "NAME")]
    pacs: Option<String>,
    /// Make a random bearer token instead of reading a password. It is shown once.
    #[arg(long)]
    token: bool,
}

/// `known`: the names of the `[[pacs]]` blocks of the configuration that this program was given.
pub(super) fn run(arguments: &Arguments, known: &[String]) -> anyhow::Result<End> {
    let Subcommands::Add(add) = &arguments.command;
    check_name(&add.name)?;
    if let Some(pacs) = &add.pacs {
        check_pacs(pacs, known)?;
    }
    let secret = if add.token {
        format!(
            "{}.{}",
            add.name,
            BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
        )
    } else {
        read_password()?
    };
    let block = block(&add.name, &secret, &add.roles, add.pacs.as_deref())?;
    if add.token {
        say(format!("# Bearer token, shown only now: {secret}"));
    }
    say(block);
    Ok(End::Done)
}

/// A colon would end the name in Basic authentication.
fn check_name(name: &str) -> anyhow::Result<()> {
    let right = !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if !right {
        bail!("a name is letters, digits, `_` and `-`, at most {LONGEST_NAME}");
    }
    Ok(())
}

/// Without any block the configuration is not at hand, as where the user is made on another machine: the service says at its start whether it knows the name.
fn check_pacs(pacs: &str, known: &[String]) -> anyhow::Result<()> {
    if !known.is_empty() && !known.iter().any(|name| name == pacs) {
        bail!("there is no [[pacs]] block named {pacs:?}; {}", the_known(known));
    }
    Ok(())
}

fn read_password() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        let mut out = io::stderr().lock();
        let _ = write!(out, "Password (it is shown as you type): ");
        let _ = out.flush();
    }
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("cannot read the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    if password.len() < SHORTEST {
        bail!("a password has at least {SHORTEST} characters; it is read from standard input");
    }
    Ok(password)
}

fn block(name: &str, secret: &str, roles: &[Role], pacs: Option<&str>) -> anyhow::Result<String> {
    let hash: argon2::password_hash::phc::PasswordHash = Argon2::default()
        .hash_password(secret.as_bytes())
        .map_err(|error| anyhow::anyhow!("cannot hash the password: {error}"))?;
    let hash = hash.to_string();
    debug_assert!(PasswordHash::new(&hash).is_ok());
    let mut roles: Vec<Role> = roles.to_vec();
    roles.sort_unstable();
    roles.dedup();
    let roles: Vec<String> = roles.iter().map(|role| format!("\"{}\"", role.name())).collect();
    let pacs = pacs.map(|pacs| format!("\npacs = {}", toml::Value::from(pacs)));
    Ok(format!(
        "[[user]]\nname = \"{name}\"\nhash = \"{hash}\"\nroles = [{}]{}",
        roles.join(", "),
        pacs.unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use argon2::password_hash::PasswordVerifier;

    #[test]
    fn the_block_is_what_the_configuration_reads() {
        #[derive(serde::Deserialize)]
        struct Blocks {
            user: Vec<crate::http::User>,
        }
        let text = block("viewer", "long enough", &[Role::Read, Role::Operate, Role::Read], None).unwrap();
        let blocks: Blocks = toml::from_str(&text).unwrap();
        assert_eq!(blocks.user[0].name, "viewer");
        assert_eq!(blocks.user[0].roles, [Role::Read, Role::Operate]);
        let hash = PasswordHash::new(&blocks.user[0].hash).unwrap();
        assert!(Argon2::default().verify_password(b"long enough", &hash).is_ok());
        assert!(Argon2::default().verify_password(b"another one", &hash).is_err());
        assert_eq!(blocks.user[0].pacs, None);
        for name in ["orthanc", "the \"old\" one"] {
            let text = block("gate", "long enough", &[Role::Ingest], Some(name)).unwrap();
            let blocks: Blocks = toml::from_str(&text).unwrap();
            assert_eq!(blocks.user[0].pacs.as_deref(), Some(name));
        }
    }

    #[test]
    fn a_pacs_that_the_configuration_does_not_have_is_refused_and_the_known_ones_are_listed() {
        let known = ["orthanc".to_owned(), "archive".to_owned()];
        assert!(check_pacs("archive", &known).is_ok());
        assert!(check_pacs("archive", &[]).is_ok(), "its configuration is elsewhere");
        let said = check_pacs("Archive", &known).unwrap_err().to_string();
        assert!(
            said.contains("\"Archive\"") && said.contains("orthanc, archive"),
            "{said}"
        );
    }

    #[test]
    fn names_that_would_not_come_through_are_refused() {
        for name in ["", "a:b", "a.b", "a\nb", "\u{e9}", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("orthanc-1_a").is_ok());
    }
}
