//! Where the service listens, and who may do what.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The `[service]` section.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSettings {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Where slices, results and the private database lie.
    pub data_folder: PathBuf,
    /// PostgreSQL; empty: `DATABASE_URL` of the environment, else a private cluster in the data folder.
    pub database_url: String,
    /// Folder of the PostgreSQL programs for the private cluster; empty: it is looked for.
    pub postgres_folder: PathBuf,
    /// Connections to the database.
    pub database_connections: u32,
    /// Names under which the service is asked (the Host header), beside the address that it listens on.
    pub hosts: Vec<String>,
    /// Listen off loopback without credentials.
    pub insecure: bool,
    /// Most seconds that the head of a request may take, the body of one that is no upload, and that a connection may stay open between two requests.
    pub head_seconds: f64,
    /// Most seconds between the wish to end and the end.
    pub drain_seconds: f64,
    /// Most streams of events (SSE) open at once; others get 503 with Retry-After.
    pub max_event_streams: usize,
}

/// A `[[user]]` block.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Name for Basic authentication.
    pub name: String,
    /// Argon2 hash of the password or of the bearer token, as `hilum user add` makes it.
    pub hash: String,
    /// What the user may do.
    pub roles: Vec<Role>,
    /// Name of the `[[pacs]]` block that this user is: what it stores comes from there, unless the request names another source.
    #[serde(default)]
    pub pacs: Option<String>,
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Send instances.
    Ingest,
    /// Ask.
    Read,
    /// Change: cancel, retry, deliver again, submit, pause.
    Operate,
}

impl std::fmt::Debug for ServiceSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL of a database holds a password.
        f.debug_struct("ServiceSettings")
            .field("listen", &self.listen)
            .field("data_folder", &self.data_folder)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("roles", &self.roles)
            .field("pacs", &self.pacs)
            .finish_non_exhaustive()
    }
}

impl Role {
    /// Its name, as in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Ingest => "ingest",
            Role::Read => "read",
            Role::Operate => "operate",
        }
    }
}
