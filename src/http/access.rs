//! Who may do what: the Host that is asked for, the Origin of what changes something, credentials and roles.
//!
//! Every route stands in one list with what it needs (`routes.rs`); what does not stand there is refused. All of it is decided before a body is read.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::problem::Problem;
use super::{HttpError, Role, ServiceSettings, User};

/// A verified credential is remembered for so long.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Most credentials remembered at once.
const MOST_REMEMBERED: usize = 1024;
/// Credentials verified at once: each takes a core and 19 MiB for a moment.
const VERIFIED_AT_ONCE: usize = 2;
/// Longest Authorization header that is looked at.
const LONGEST_CREDENTIAL: usize = 1024;

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: signs of life.
    Open,
    /// A user with this role.
    Needs(Role),
}

/// Of each path, its methods and what they need.
pub(crate) type Table = HashMap<String, Vec<(Method, Access)>>;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(crate) String);

/// The PACS that series come from which this caller stores, where nothing else is said: `pacs` of the `[[user]]` block.
#[derive(Clone, Debug)]
pub(crate) struct StoresFor(pub(crate) String);

/// Whether the service may listen where it is told to.
///
/// # Errors
/// Off loopback without users, unless told so.
pub fn may_listen(settings: &ServiceSettings, users: &[User]) -> Result<(), HttpError> {
    if settings.listen.ip().is_loopback() || settings.insecure || !users.is_empty() {
        Ok(())
    } else {
        Err(HttpError::Unprotected(settings.listen))
    }
}

/// The users, and the credentials that were verified lately. Cheap to clone.
#[derive(Clone)]
pub struct Users(Arc<Inner>);

struct Inner {
    users: Vec<User>,
    /// What an unknown name is verified against, so that it takes as long as a known one.
    nobody: String,
    key: [u8; 32],
    remembered: Mutex<HashMap<[u8; 32], (Instant, usize)>>,
    permits: Arc<Semaphore>,
}

impl Users {
    /// Takes the `[[user]]` blocks.
    ///
    /// # Errors
    /// A hash that is none, or a name that is there twice.
    pub fn new(users: Vec<User>) -> Result<Users, HttpError> {
        for (at, user) in users.iter().enumerate() {
            if PasswordHash::new(&user.hash).is_err() {
                return Err(HttpError::Hash(user.name.clone()));
            }
            if users.iter().take(at).any(|other| other.name == user.name) {
                return Err(HttpError::Twice(user.name.clone()));
            }
        }
        let nobody = users.first().map(|user| user.hash.clone()).unwrap_or_default();
        Ok(Users(Arc::new(Inner {
            users,
            nobody,
            key: rand::random(),
            remembered: Mutex::new(HashMap::new()),
            permits: Arc::new(Semaphore::new(VERIFIED_AT_ONCE)),
        })))
    }

    /// Whether nobody is configured, so that nobody is asked who they are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.users.is_empty()
    }

    /// Which user the Authorization header belongs to.
    async fn find(&self, headers: &HeaderMap) -> Option<&User> {
        let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        if given.len() > LONGEST_CREDENTIAL {
            return None;
        }
        let mut keyed = Sha256::new();
        keyed.update(self.0.key);
        keyed.update(given.as_bytes());
        let keyed: [u8; 32] = keyed.finalize().into();
        let remembered = self
            .0
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&keyed)
            .copied();
        if let Some((until, user)) = remembered
            && until > Instant::now()
        {
            return self.0.users.get(user);
        }
        let (name, secret) = credentials(given)?;
        let found = self.0.users.iter().position(|user| user.name == name);
        let hash = found.map_or(&self.0.nobody, |at| &self.0.users[at].hash).clone();
        let permit = self.0.permits.clone().acquire_owned().await.ok()?;
        let fits = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(secret.as_bytes(), &hash).is_ok())
        })
        .await
        .unwrap_or(false);
        let user = found.filter(|_| fits)?;
        let mut remembered = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            let now = Instant::now();
            remembered.retain(|_, (until, _)| *until > now);
        }
        if remembered.len() < MOST_REMEMBERED {
            remembered.insert(keyed, (Instant::now() + REMEMBERED, user));
        }
        drop(remembered);
        self.0.users.get(user)
    }
}

/// Name and secret of an Authorization header. A bearer token begins with the name of its user and a full stop, and is the secret as a whole.
fn credentials(given: &str) -> Option<(String, String)> {
    let (scheme, rest) = given.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some((name.to_owned(), password.to_owned()))
    } else if scheme.eq_ignore_ascii_case("bearer") {
        let (name, _) = rest.rsplit_once('.')?;
        Some((name.to_owned(), rest.to_owned()))
    } else {
        None
    }
}

/// Where a request stands in the table.
enum Listed<'t> {
    /// No route was found for its path.
    Nowhere,
    /// The table has its path with these methods alone; none: there is a route that it does not have.
    ByOtherMethods(&'t [(Method, Access)]),
    /// What it needs.
    As(Access),
}

/// What is asked of every request.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) users: Users,
    table: Arc<Table>,
    hosts: Arc<Vec<String>>,
}

impl Guard {
    pub(crate) fn new(users: Users, settings: &ServiceSettings, table: Table) -> Guard {
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
        hosts.push(match settings.listen.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
        hosts.extend(
            settings
                .hosts
                .iter()
                .map(|host| without_port(host).to_ascii_lowercase()),
        );
        Guard {
            users,
            table: Arc::new(table),
            hosts: Arc::new(hosts),
        }
    }

    fn check_host(&self, host: Option<&str>) -> Result<(), Problem> {
        let name = host.map(without_port).unwrap_or_default().to_ascii_lowercase();
        if self.hosts.contains(&name) {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "unknown_host",
            "Hilum is not known under this name; add it to `hosts` in [service].",
        ))
    }

    async fn check(
        &self,
        path: Option<&str>,
        method: Method,
        authority: Option<String>,
        headers: &HeaderMap,
    ) -> Result<(Caller, Option<StoresFor>), Problem> {
        let method = if method == Method::HEAD { Method::GET } else { method };
        let anonymous = (Caller("anonymous".to_owned()), None);
        let listed = self.listed(path, &method);
        if let Listed::As(Access::Open) = listed {
            return Ok(anonymous);
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .or(authority.as_deref());
        self.check_host(host)?;
        if !matches!(method, Method::GET | Method::OPTIONS) {
            check_origin(headers, host.unwrap_or_default())?;
        }
        let asked = !self.users.is_empty();
        let user = if asked { self.users.find(headers).await } else { None };
        if asked && user.is_none() {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "Give the name and password of a user, or a bearer token.",
            ));
        }
        match listed {
            Listed::As(Access::Needs(role)) if user.is_some_and(|user| !user.roles.contains(&role)) => {
                Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "forbidden",
                    format!("This needs the role {}.", role.name()),
                ))
            }
            Listed::ByOtherMethods(others) => Err(Problem::wrong_method(others.iter().map(|(method, _)| method))),
            // Where there is no route the router says so, to those whom it knows.
            Listed::As(_) | Listed::Nowhere => Ok(user.map_or(anonymous, |user| {
                (Caller(user.name.clone()), user.pacs.clone().map(StoresFor))
            })),
        }
    }

    /// What the table says of the path that a route was found for, and of a method there.
    fn listed(&self, path: Option<&str>, method: &Method) -> Listed<'_> {
        let Some(path) = path else {
            return Listed::Nowhere;
        };
        let methods = self.table.get(path).map_or(&[][..], Vec::as_slice);
        let found = methods.iter().find(|(of, _)| of == method);
        found.map_or(Listed::ByOtherMethods(methods), |(_, access)| Listed::As(*access))
    }
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => &host[..at],
        _ => host,
    }
}

/// What changes something is refused where a page of another origin asks for it.
fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), Problem> {
    let cross_site = headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site" || site == "same-site");
    let foreign = headers.get(header::ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        origin.split_once("://").map(|(_, authority)| authority) != Some(host)
    });
    if cross_site || foreign {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "A page of another origin may not change anything here.",
        ));
    }
    Ok(())
}

/// The layer of every route.
pub(crate) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let method = request.method().clone();
    let path = path.as_ref().map(MatchedPath::as_str);
    match guard.check(path, method, authority, request.headers()).await {
        Ok((caller, stores_for)) => {
            request.extensions_mut().insert(caller);
            if let Some(stores_for) = stores_for {
                request.extensions_mut().insert(stores_for);
            }
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use argon2::password_hash::PasswordHasher;
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tokio::time::timeout;
    use tower::ServiceExt as _;

    use super::*;

    fn settings(listen: &str, insecure: bool) -> ServiceSettings {
        ServiceSettings {
            listen: listen.parse().unwrap(),
            data_folder: "data".into(),
            database_url: String::new(),
            postgres_folder: "".into(),
            database_connections: 1,
            hosts: vec!["Hilum.Example:8443".to_owned()],
            insecure,
            head_seconds: 75.0,
            drain_seconds: 1.0,
            max_event_streams: 1,
        }
    }

    #[tokio::test]
    async fn a_route_that_is_not_in_the_list_answers_nobody() {
        let all = User {
            roles: vec![Role::Ingest, Role::Read, Role::Operate],
            ..user("all", "a password")
        };
        for users in [Vec::new(), vec![all]] {
            let table = Table::from([("/listed".to_owned(), vec![(Method::GET, Access::Needs(Role::Read))])]);
            let guarding = Guard::new(Users::new(users).unwrap(), &settings("127.0.0.1:1", false), table);
            let both = || get(async || "told").post(async || "changed");
            let router = Router::new()
                .route("/listed", both())
                .route("/forgotten", both())
                .layer(from_fn_with_state(guarding, guard));
            for (method, path, status) in [
                ("GET", "/listed", 200),
                ("HEAD", "/listed", 200),
                ("POST", "/listed", 405),
                ("GET", "/forgotten", 405),
            ] {
                let request = Request::builder().method(method).uri(path).header("host", "localhost");
                let request = request.header(
                    "authorization",
                    format!("Basic {}", BASE64_STANDARD.encode("all:a password")),
                );
                let answer = router
                    .clone()
                    .oneshot(request.body(Body::empty()).unwrap())
                    .await
                    .unwrap();
                assert_eq!(answer.status(), status, "{method} {path}");
                if status == 405 {
                    assert_eq!(
                        answer.headers()["allow"],
                        if path == "/listed" { "GET,HEAD" } else { "" }
                    );
                }
            }
        }
    }

    #[test]
    fn off_loopback_it_listens_only_with_users_or_when_told_so() {
        assert!(may_listen(&settings("127.0.0.1:1", false), &[]).is_ok());
        assert!(may_listen(&settings("[::1]:1", false), &[]).is_ok());
        assert!(may_listen(&settings("0.0.0.0:1", true), &[]).is_ok());
        let sentence = may_listen(&settings("0.0.0.0:1", false), &[]).unwrap_err().to_string();
        assert!(
            sentence.contains("hilum user add") && sentence.contains("--insecure"),
            "{sentence}"
        );
    }

    #[test]
    fn hosts_are_compared_without_their_port_and_case() {
        let guard = Guard::new(
            Users::new(Vec::new()).unwrap(),
            &settings("10.0.0.1:80", false),
            Table::new(),
        );
        for known in [
            "localhost",
            "LOCALHOST:8043",
            "127.0.0.1:1",
            "[::1]:8043",
            "[::1]",
            "10.0.0.1:80",
            "hilum.example",
        ] {
            assert!(guard.check_host(Some(known)).is_ok(), "{known}");
        }
        for unknown in [
            "",
            "evil.example",
            "localhost.evil.example:8043",
            "127.0.0.1.evil",
            "[::2]",
        ] {
            assert!(guard.check_host(Some(unknown)).is_err(), "{unknown}");
        }
        assert!(guard.check_host(None).is_err());
    }

    fn user(name: &str, password: &str) -> User {
        let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes()).unwrap();
        User {
            name: name.to_owned(),
            hash: hash.to_string(),
            roles: Vec::new(),
            pacs: None,
        }
    }

    fn basic(name: &str, password: &str) -> HeaderMap {
        let given = format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")));
        HeaderMap::from_iter([(header::AUTHORIZATION, given.parse().unwrap())])
    }

    /// Who is found without verifying anything; `None`: only that would tell.
    async fn found_at_once<'a>(users: &'a Users, headers: &HeaderMap) -> Option<Option<&'a User>> {
        let _all = users.0.permits.acquire_many(VERIFIED_AT_ONCE as u32).await.unwrap();
        timeout(Duration::from_millis(200), users.find(headers)).await.ok()
    }

    #[tokio::test]
    async fn a_verified_credential_is_remembered_for_minutes_and_a_wrong_one_never() {
        let users = Users::new(vec![user("a", "right"), user("b", "right")]).unwrap();
        let remembered = || users.0.remembered.lock().unwrap();
        for wrong in [basic("a", "wrong"), basic("nobody", "right"), basic("a", "")] {
            assert!(users.find(&wrong).await.is_none());
            assert!(
                found_at_once(&users, &wrong).await.is_none(),
                "it is verified each time"
            );
        }
        assert!(remembered().is_empty());
        let right = basic("b", "right");
        assert!(found_at_once(&users, &right).await.is_none(), "nobody knows it yet");
        assert_eq!(users.find(&right).await.unwrap().name, "b");
        assert_eq!(found_at_once(&users, &right).await.unwrap().unwrap().name, "b");
        // Of others, as of another password of the same user, that says nothing.
        for other in [basic("a", "right"), basic("b", "wrong")] {
            assert!(found_at_once(&users, &other).await.is_none());
        }
        // What is held is a hash of the credential under a key of this process.
        let plain: [u8; 32] = Sha256::digest(right[header::AUTHORIZATION].as_bytes()).into();
        assert_eq!(remembered().len(), 1);
        assert!(!remembered().contains_key(&plain));
        // After its time it is verified again.
        for (until, _) in remembered().values_mut() {
            assert!(*until > Instant::now() + REMEMBERED - Duration::from_secs(60));
            *until = Instant::now();
        }
        assert!(found_at_once(&users, &right).await.is_none());
        assert_eq!(users.find(&right).await.unwrap().name, "b");
        assert!(found_at_once(&users, &right).await.is_some());
    }

    #[tokio::test]
    async fn a_process_remembers_nothing_of_the_users_of_another() {
        let (before, right) = (Users::new(vec![user("a", "right")]).unwrap(), basic("a", "right"));
        assert!(before.find(&right).await.is_some());
        // It was started again with another configuration: another password, the user gone, or all as it was.
        for (after, known) in [
            (vec![user("a", "other")], false),
            (vec![user("b", "right")], false),
            (vec![user("a", "right")], true),
        ] {
            let after = Users::new(after).unwrap();
            assert_ne!(after.0.key, before.0.key);
            assert!(found_at_once(&after, &right).await.is_none());
            assert_eq!(after.find(&right).await.is_some(), known);
        }
    }

    #[tokio::test]
    async fn no_more_credentials_are_remembered_than_there_is_room_for() {
        let (users, right) = (Users::new(vec![user("a", "right")]).unwrap(), basic("a", "right"));
        let fill = |until: Instant| {
            let mut remembered = users.0.remembered.lock().unwrap();
            let others = (0..MOST_REMEMBERED as u64).map(|at| Sha256::digest(at.to_le_bytes()).into());
            remembered.extend(others.map(|key| (key, (until, 0))));
            assert_eq!(remembered.len(), MOST_REMEMBERED);
        };
        fill(Instant::now() + REMEMBERED);
        assert!(users.find(&right).await.is_some());
        assert!(found_at_once(&users, &right).await.is_none());
        fill(Instant::now());
        assert!(users.find(&right).await.is_some());
        assert!(found_at_once(&users, &right).await.is_some());
        assert_eq!(users.0.remembered.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_hash_that_is_none_is_named() {
        let user = User {
            name: "a".to_owned(),
            hash: "secret".to_owned(),
            roles: Vec::new(),
            pacs: None,
        };
        assert!(matches!(Users::new(vec![user]), Err(HttpError::Hash(name)) if name == "a"));
    }
}
