//! A PACS behind TLS that asks for a client certificate: who is let in, and who is not.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

/// An authority, and what it signed for the server and for a client, as PEM files and a server's configuration.
struct Certificates {
    folder: tempfile::TempDir,
    server: ServerConfig,
}

impl Certificates {
    fn new() -> Certificates {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority();
        let (ours, others) = (signed(&authority), signed(&self::authority()));
        let (certificate, key) = signed(&authority);
        std::fs::write(folder.path().join("authority.pem"), authority.pem()).unwrap();
        for (name, (certificate, key)) in [("client.pem", &ours), ("stranger.pem", &others)] {
            let pem = format!("{}{}", certificate.pem(), key.serialize_pem());
            std::fs::write(folder.path().join(name), pem).unwrap();
        }
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .unwrap();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        Certificates { folder, server }
    }

    /// Lines of a `[[pacs]]` block that name these files.
    fn lines(&self, authority: bool, client: Option<&str>) -> String {
        let line = |key: &str, name: &str| format!("{key} = {:?}\n", self.folder.path().join(name));
        let authority = authority.then(|| line("certificate_authority", "authority.pem"));
        let client = client.map(|name| line("client_certificate", name));
        [authority, client].into_iter().flatten().collect()
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new([]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

fn signed(authority: &CertifiedIssuer<'static, KeyPair>) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let parameters = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (parameters.signed_by(&key, authority).unwrap(), key)
}

/// TLS in front of `behind`, on a free port of loopback.
async fn tls_before(behind: SocketAddr, configuration: ServerConfig) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(configuration));
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Whoever shows no certificate of ours is turned away here.
                if let Ok(mut inside) = acceptor.accept(stream).await
                    && let Ok(mut to) = TcpStream::connect(behind).await
                {
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut to).await;
                }
            });
        }
    });
    (address, task)
}

#[tokio::test]
async fn a_client_certificate_opens_a_pacs_that_asks_for_one_and_nothing_else_does() {
    let server = QuirkServer::start().await;
    server.inside().series.push(served(STUDY, SERIES, 3));
    let certificates = Certificates::new();
    let (address, task) = tls_before(server.address, certificates.server.clone()).await;
    let client = |more: &str| Client::new(&pacs(&format!("https://{address}/dicom-web"), more));

    let ours = client(&certificates.lines(true, Some("client.pem"))).unwrap();
    assert_eq!(ours.series_count(STUDY, SERIES).await.unwrap(), Some(3));
    ours.retrieve_series(STUDY, SERIES).await.unwrap();
    assert_eq!(server.inside().wado_requests, 1);
    for (why, more) in [
        ("no certificate", certificates.lines(true, None)),
        (
            "one of another authority",
            certificates.lines(true, Some("stranger.pem")),
        ),
        (
            "a server that nobody vouches for",
            certificates.lines(false, Some("client.pem")),
        ),
    ] {
        let error = client(&more)
            .unwrap()
            .retrieve_series(STUDY, SERIES)
            .await
            .err()
            .expect(why);
        assert!(
            error.is_transient(),
            "{why}: {error} is tried again, since certificates are renewed"
        );
    }
    assert_eq!(server.inside().wado_requests, 1, "none of the others was let in");
    task.abort();
}

#[test]
fn a_file_that_is_no_identity_is_named() {
    let certificates = Certificates::new();
    let key = certificates.folder.path().join("key.pem");
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    for (setting, file) in [
        ("client_certificate", "key.pem"),
        ("client_certificate", "absent.pem"),
        ("certificate_authority", "absent.pem"),
        ("certificate_authority", "key.pem"),
    ] {
        let path = certificates.folder.path().join(file);
        let block = pacs("https://127.0.0.1/dicom-web", &format!("{setting} = {path:?}"));
        let Err(error) = Client::new(&block) else {
            panic!("{setting} = {file} was taken");
        };
        assert!(error.to_string().contains(file), "{setting}, {file}: {error}");
    }
}
