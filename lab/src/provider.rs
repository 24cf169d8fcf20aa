//! The AWS IoT Core credential provider: mutual TLS, one request, one answer. It keeps AWS's
//! contract by itself and breaks it only on order ([`Behaviour`], [`ServerCertificate`], [`Door`]).
//! It never looks at S3: what it issues goes into the sessions' table.

mod behaviour;
mod odd_answers;
mod tls;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::behaviour::{Outgoing, Reply};
pub(crate) use self::tls::{Signature, Tls};
pub use self::{
    behaviour::{Behaviour, DateHeader},
    odd_answers::{Expected, OddAnswer, odd_answers},
    tls::{ClientSignatures, TlsVersions},
};
use crate::{
    error::{Error, Result},
    pki::{Pki, ServerCertificate},
    port::Port,
    registry::{Registration, Registry},
    sessions::{Session, Sessions},
    sync::Shared,
};

/// What happens to a TCP connection before TLS begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// The handshake begins.
    #[default]
    Open,
    /// Accepted and dropped at once.
    Slammed,
    /// Accepted, and never a byte comes back.
    Silent,
}

/// One request that got through the handshake.
#[derive(Clone, Debug)]
pub struct RequestLog {
    /// When its head had been read.
    pub at: Instant,
    /// The role alias in its path; empty where the path was another.
    pub alias: String,
    /// Its `x-amzn-iot-thingname` header.
    pub thing_name: Option<String>,
    /// The thing that the client's certificate is registered for.
    pub certificate_thing: String,
    /// The status in the answer; `None` where the behaviour has none (a hang, raw bytes).
    pub status: Option<u16>,
    /// `TLSv1_2` or `TLSv1_3`.
    pub tls_version: String,
    /// What the client's key signed the handshake with, as `ECDSA_NISTP256_SHA256`.
    pub signature_scheme: String,
}

/// One connection that was accepted.
#[derive(Clone, Debug)]
pub struct ConnectionLog {
    /// When it was accepted.
    pub at: Instant,
    /// How far its handshake came.
    pub handshake: Handshake,
}

/// How far a TLS handshake came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It goes on, or it waits for ever on order.
    Underway,
    /// It was completed.
    Done,
    /// It came to nothing, for this reason.
    Failed(String),
}

/// What the provider is asked for, and what it gives.
pub(crate) struct Contract {
    pub(crate) server_name: String,
    pub(crate) role_alias: String,
    pub(crate) lifetime: Duration,
}

/// The running credential provider. All setters take effect on the next connection or request.
pub struct Provider {
    shared: Arc<State>,
    port: Port,
}

impl Provider {
    pub(crate) fn start(
        runtime: Handle,
        bind: IpAddr,
        contract: Contract,
        pki: Arc<Pki>,
        registry: Arc<Registry>,
        sessions: Arc<Sessions>,
    ) -> Result<Self> {
        let shared = Arc::new(State {
            server_name: contract.server_name,
            role_alias: contract.role_alias,
            tls: Tls::new(pki, registry.clone())?,
            registry,
            sessions,
            orders: Shared::new(Orders {
                lifetime: contract.lifetime,
                ..Orders::default()
            }),
            requests: Shared::default(),
            connections: Shared::default(),
        });
        let serving = shared.clone();
        let port = Port::open(runtime, SocketAddr::new(bind, 0), move |stream| {
            serving.clone().serve(stream)
        })
        .map_err(Error::doing("the credential provider can't listen"))?;
        Ok(Self { shared, port })
    }

    /// `host:port`, as `credentials.endpoint` takes it.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.shared.server_name, self.port.address().port())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The one role alias that exists.
    pub fn role_alias(&self) -> &str {
        &self.shared.role_alias
    }

    /// How long the sessions live that are issued from now on.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.shared.orders.lock().lifetime = lifetime;
    }

    /// How requests are answered from now on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.shared.orders.lock().behaviour = behaviour;
    }

    /// How one request is answered: the next that has no such order before it.
    pub fn push_once(&self, behaviour: Behaviour) {
        self.shared.orders.lock().once.push_back(behaviour);
    }

    /// How far the provider's clock is from the machine's, in seconds. It shows in `Date` and in
    /// `expiration`; how long a session lives does not change.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.shared.orders.lock().clock_offset = seconds;
    }

    /// What happens to connections before TLS.
    pub fn set_door(&self, door: Door) {
        self.shared.orders.lock().door = door;
    }

    pub(crate) fn server_name(&self) -> &str {
        &self.shared.server_name
    }

    /// Which certificate the server shows.
    pub fn set_server_certificate(&self, certificate: ServerCertificate) {
        self.shared.orders.lock().certificate = certificate;
    }

    /// Which TLS versions the server speaks.
    pub fn set_tls_versions(&self, versions: TlsVersions) {
        self.shared.orders.lock().versions = versions;
    }

    /// Which signatures the server asks of the client's key.
    pub fn set_client_signatures(&self, signatures: ClientSignatures) {
        self.shared.orders.lock().signatures = signatures;
    }

    /// Off: connections are cut and new ones refused, until it is on again at the same port.
    pub fn set_listening(&self, on: bool) -> Result<()> {
        self.port.set_listening(on).map_err(Error::doing(
            "the credential provider's port can't be opened or closed",
        ))
    }

    /// Every request so far, oldest first.
    pub fn requests(&self) -> Vec<RequestLog> {
        self.shared.requests.lock().clone()
    }

    /// Every connection so far, oldest first, those that failed in the handshake too.
    pub fn connections(&self) -> Vec<ConnectionLog> {
        self.shared.connections.lock().clone()
    }

    /// Every session that was issued, oldest first.
    pub fn issued(&self) -> Vec<Session> {
        self.shared.sessions.issued()
    }

    /// A session without the handshake, for tests that are about S3.
    pub fn issue(&self, thing_name: &str, lifetime: Duration) -> Session {
        self.shared
            .sessions
            .issue(thing_name, lifetime, SystemTime::now())
    }
}

struct State {
    server_name: String,
    role_alias: String,
    registry: Arc<Registry>,
    sessions: Arc<Sessions>,
    tls: Tls,
    orders: Shared<Orders>,
    requests: Shared<Vec<RequestLog>>,
    connections: Shared<Vec<ConnectionLog>>,
}

/// What the test wants.
#[derive(Default)]
struct Orders {
    lifetime: Duration,
    behaviour: Behaviour,
    once: VecDeque<Behaviour>,
    clock_offset: i64,
    door: Door,
    certificate: ServerCertificate,
    versions: TlsVersions,
    signatures: ClientSignatures,
}

/// Who is at the other end.
struct Peer {
    thing_name: String,
    named_this_server: bool,
    tls_version: String,
    signature_scheme: String,
}

/// A request's head, as far as the provider reads it.
struct Request {
    method: String,
    path: String,
    thing_name: Option<String>,
    /// The client will send no other on this connection.
    is_last: bool,
}

impl State {
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let number = self.log_connection();
        let door = self.orders.lock().door;
        match door {
            Door::Open => {}
            Door::Slammed => {
                return self.log_handshake(number, Handshake::Failed("dropped on order".into()));
            }
            Door::Silent => return std::future::pending().await,
        }
        match self.handshake(stream).await {
            Ok((mut stream, peer)) => {
                self.log_handshake(number, Handshake::Done);
                // An error here means that the client went away, which is its right.
                let _ = self.converse(&mut stream, &peer).await;
            }
            Err((reason, stream)) => {
                self.log_handshake(number, Handshake::Failed(reason.to_string()));
                linger(stream).await;
            }
        }
    }

    fn log_connection(&self) -> usize {
        let mut connections = self.connections.lock();
        connections.push(ConnectionLog {
            at: Instant::now(),
            handshake: Handshake::Underway,
        });
        connections.len() - 1
    }

    fn log_handshake(&self, number: usize, handshake: Handshake) {
        self.connections.lock()[number].handshake = handshake;
    }

    async fn handshake(
        &self,
        stream: TcpStream,
    ) -> std::result::Result<(TlsStream<TcpStream>, Peer), (io::Error, TcpStream)> {
        let (certificate, versions, signatures) = {
            let orders = self.orders.lock();
            (orders.certificate, orders.versions, orders.signatures)
        };
        let signature = Signature::default();
        let configured =
            self.tls
                .server_config(certificate, versions, signatures, signature.clone());
        let config = match configured {
            Ok(config) => config,
            Err(error) => return Err((io::Error::other(error), stream)),
        };
        let stream = TlsAcceptor::from(config)
            .accept(stream)
            .into_fallible()
            .await?;
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let peer = Peer {
            thing_name: self.thing_of(certificate).unwrap_or_default(),
            named_this_server: connection.server_name() == Some(&self.server_name),
            tls_version: connection
                .protocol_version()
                .map(|version| format!("{version:?}"))
                .unwrap_or_default(),
            signature_scheme: signature.to_string(),
        };
        Ok((stream, peer))
    }

    fn thing_of(&self, certificate: Option<&CertificateDer<'_>>) -> Option<String> {
        match self.registry.find(certificate?)? {
            Registration::Active { thing_name } => Some(thing_name),
            Registration::Revoked => None,
        }
    }

    /// Answers requests until the client leaves or an order says so.
    async fn converse(&self, stream: &mut TlsStream<TcpStream>, peer: &Peer) -> io::Result<()> {
        while let Some(request) = read_request(stream).await? {
            let at = Instant::now();
            let behaviour = self.next_behaviour();
            if let Behaviour::Slow(delay) = behaviour {
                tokio::time::sleep(delay).await;
            }
            let outgoing = behaviour.outgoing(|date| self.answer(&request, peer, date));
            self.requests.lock().push(RequestLog {
                at,
                alias: alias(&request.path).unwrap_or_default().to_owned(),
                thing_name: request.thing_name,
                certificate_thing: peer.thing_name.clone(),
                status: outgoing.status(),
                tls_version: peer.tls_version.clone(),
                signature_scheme: peer.signature_scheme.clone(),
            });
            if !send(stream, outgoing).await? {
                // Without TLS's own goodbye, as where the other end was cut off.
                return Ok(());
            }
            if request.is_last {
                return stream.shutdown().await;
            }
        }
        Ok(())
    }

    fn next_behaviour(&self) -> Behaviour {
        let mut orders = self.orders.lock();
        orders
            .once
            .pop_front()
            .unwrap_or_else(|| orders.behaviour.clone())
    }

    /// The contract: what AWS answers to this request from this peer.
    fn answer(&self, request: &Request, peer: &Peer, date: &DateHeader) -> Reply {
        let clock = self.clock();
        let reply = if !peer.named_this_server {
            Reply::error(403, "Certificate is invalid on this endpoint")
        } else {
            match alias(&request.path) {
                Some(alias) if request.method == "GET" => {
                    if alias != self.role_alias {
                        Reply::error(404, "Role alias does not exist")
                    } else if request
                        .thing_name
                        .as_ref()
                        .is_some_and(|n| *n != peer.thing_name)
                    {
                        Reply::error(403, "Invalid thing name passed")
                    } else {
                        let lifetime = self.orders.lock().lifetime;
                        let session = self.sessions.issue(&peer.thing_name, lifetime, clock);
                        Reply::json(200, session.to_json())
                    }
                }
                _ => Reply::error(404, "Not Found"),
            }
        };
        reply.dated(date, clock)
    }

    fn clock(&self) -> SystemTime {
        let offset = self.orders.lock().clock_offset;
        let distance = Duration::from_secs(offset.unsigned_abs());
        let now = SystemTime::now();
        let moved = if offset < 0 {
            now.checked_sub(distance)
        } else {
            now.checked_add(distance)
        };
        moved.unwrap_or(now)
    }
}

/// Reads what the client still says, for a while. Closed with unread bytes, the connection would be
/// reset, and the client would often see that instead of the alert that names the reason.
async fn linger(mut stream: TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), drained).await;
}

/// `None` where the client closed the connection between requests.
async fn read_request(stream: &mut TlsStream<TcpStream>) -> io::Result<Option<Request>> {
    const HEAD_LIMIT: usize = 64 * 1024;
    let mut head = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        if parsed.parse(&head).map_err(io::Error::other)?.is_complete() {
            let header = |name: &str| {
                let found = parsed
                    .headers
                    .iter()
                    .find(|h| h.name.eq_ignore_ascii_case(name))?;
                Some(String::from_utf8_lossy(found.value).into_owned())
            };
            return Ok(Some(Request {
                method: parsed.method.unwrap_or_default().to_owned(),
                path: parsed.path.unwrap_or_default().to_owned(),
                thing_name: header("x-amzn-iot-thingname"),
                is_last: header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")),
            }));
        }
        if head.len() > HEAD_LIMIT {
            return Err(io::Error::other("the request's head has no end"));
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
}

/// False where nothing more can follow on this connection.
async fn send(stream: &mut TlsStream<TcpStream>, outgoing: Outgoing) -> io::Result<bool> {
    match outgoing {
        Outgoing::Reply(reply) => {
            stream.write_all(&reply.to_bytes()).await?;
            stream.flush().await?;
            Ok(true)
        }
        Outgoing::CutShort(reply) => {
            let bytes = reply.to_bytes();
            let missing = reply.body.len() / 2 + 1;
            stream
                .write_all(&bytes[..bytes.len().saturating_sub(missing)])
                .await?;
            stream.flush().await?;
            Ok(false)
        }
        Outgoing::Dripping(reply, pause) => {
            for byte in reply.to_bytes() {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(pause).await;
            }
            Ok(true)
        }
        Outgoing::Raw(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            Ok(false)
        }
        Outgoing::Endless { head, piece } => {
            stream.write_all(&head).await?;
            loop {
                stream.write_all(&piece).await?;
                stream.flush().await?;
                // Fast enough to pass any limit in time, slow enough to leave the test a processor.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Outgoing::Nothing => std::future::pending().await,
    }
}

/// The alias in `/role-aliases/ALIAS/credentials`.
fn alias(path: &str) -> Option<&str> {
    path.strip_prefix("/role-aliases/")?
        .strip_suffix("/credentials")
}
