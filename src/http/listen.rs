//! Connections in, answers out: HTTP/1.1 with a time and a size for the head of each request, so that a client which never ends one holds its place for a while only.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most bytes of the head of a request; more is answered 431.
const HEAD_BYTES: usize = 64 << 10;
/// After an error of the system (no file left), so long.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// Serves until `drain` is canceled, then ends each connection with its present request, or at once when `end` is canceled as well. `head` is the time that a
/// request's head may take, and that a connection may stay open between two requests.
pub async fn listen(
    listener: TcpListener,
    router: Router,
    head: Duration,
    drain: CancellationToken,
    end: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_header_size(HEAD_BYTES);
    let places = Arc::new(Semaphore::new(most_connections()));
    let connections = TaskTracker::new();
    let accepted = async || {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        Some((place, accept(&listener).await))
    };
    loop {
        let (place, stream) = tokio::select! {
            accepted = accepted() => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
            () = drain.cancelled() => break,
        };
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let (drain, end) = (drain.clone(), end.clone());
        connections.spawn(async move {
            let _place = place;
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = drain.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = end.cancelled() => return,
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Half of the files that the process may open: the others are for the database and the disk.
fn most_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 2).unwrap_or(usize::MAX).clamp(16, 10_000)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The client went away before we came to it.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted now");
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
}
