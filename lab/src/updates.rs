//! A server of updates: files over HTTPS, for devices that show a registered certificate, as the credential provider
//! asks for it.
//!
//! Owns what is served and what was asked for. Answers `GET` alone, with whole files.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    error::{Error, Result},
    pki::{Pki, ServerCertificate},
    port::Port,
    provider::{ClientSignatures, Signature, Tls, TlsVersions},
    registry::{Registration, Registry},
    sync::Shared,
};

/// No request's head is longer, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;

/// The running server.
pub struct Updates {
    shared: Arc<State>,
    port: Port,
    server_name: String,
}

struct State {
    tls: Tls,
    registry: Arc<Registry>,
    folder: PathBuf,
    sent: Shared<Vec<Sent>>,
}

/// What a device was sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sent {
    /// The thing whose certificate it showed.
    pub thing_name: String,
    /// What its key signed with.
    pub signature_scheme: String,
    /// The path, as it was asked for.
    pub path: String,
    /// How many bytes of the file.
    pub bytes: u64,
}

impl Updates {
    pub(crate) fn start(
        runtime: Handle,
        bind: IpAddr,
        server_name: &str,
        pki: Arc<Pki>,
        registry: Arc<Registry>,
        folder: &Path,
    ) -> Result<Self> {
        let shared = Arc::new(State {
            tls: Tls::new(pki, registry.clone())?,
            registry,
            folder: folder.to_owned(),
            sent: Shared::default(),
        });
        let serving = shared.clone();
        let port = Port::open(runtime, SocketAddr::new(bind, 0), move |stream| {
            let serving = serving.clone();
            async move {
                // A device that goes away, or is not let in, is its own affair.
                let _ = serving.serve(stream).await;
            }
        })
        .map_err(Error::doing("the server of updates can't listen"))?;
        Ok(Self {
            shared,
            port,
            server_name: server_name.to_owned(),
        })
    }

    /// The URL of a file in the folder.
    pub fn url(&self, name: &str) -> String {
        let port = self.port.address().port();
        format!("https://{}:{port}/{name}", self.server_name)
    }

    /// What was sent so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.shared.sent.lock().clone()
    }
}

impl State {
    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let signature = Signature::default();
        let config = self.tls.server_config(
            ServerCertificate::Good,
            TlsVersions::Both,
            ClientSignatures::Any,
            signature.clone(),
        );
        let acceptor = TlsAcceptor::from(config.map_err(io::Error::other)?);
        let mut stream = acceptor.accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates();
        let certificate = certificate.and_then(<[_]>::first);
        let thing_name = match certificate.and_then(|shown| self.registry.find(shown)) {
            Some(Registration::Active { thing_name }) => thing_name,
            _ => return Err(io::Error::other("the certificate is not registered")),
        };
        while let Some(request) = Request::read(&mut stream).await? {
            let bytes = self.answer(&request, &mut stream).await?;
            self.sent.lock().push(Sent {
                thing_name: thing_name.clone(),
                signature_scheme: signature.to_string(),
                path: request.path,
                bytes,
            });
        }
        Ok(())
    }

    /// Answers, and says how many bytes of a file were sent.
    async fn answer(
        &self,
        request: &Request,
        stream: &mut TlsStream<TcpStream>,
    ) -> io::Result<u64> {
        let name = request.path.trim_start_matches('/');
        let is_plain = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
        let content = match is_plain && request.method == "GET" {
            true => std::fs::read(self.folder.join(name)).ok(),
            false => None,
        };
        let (head, content) = match &content {
            Some(content) => ("200 OK", &content[..]),
            None => ("404 Not Found", &[][..]),
        };
        let length = content.len();
        let head = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(content).await?;
        stream.flush().await?;
        Ok(length as u64)
    }
}

struct Request {
    method: String,
    path: String,
}

impl Request {
    /// `None` where the device closed the connection between requests.
    async fn read(stream: &mut TlsStream<TcpStream>) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut headers);
            if parsed.parse(&head).map_err(io::Error::other)?.is_complete() {
                return Ok(Some(Self {
                    method: parsed.method.unwrap_or_default().to_owned(),
                    path: parsed.path.unwrap_or_default().to_owned(),
                }));
            }
            if head.len() > LONGEST_HEAD {
                return Err(io::Error::other("the request's head has no end"));
            }
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(None);
            }
        }
    }
}
