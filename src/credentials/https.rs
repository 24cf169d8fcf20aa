//! One HTTPS request to the credential provider.
//!
//! Owns name resolution, the use of TCP and TLS, HTTP/1.1, time limits, and the meaning of each of
//! their errors. Never follows a redirect, keeps a connection or uses a proxy, and never lets a
//! library log the traffic.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;
use rustls::{ClientConnection, StreamOwned};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Error, Timeout};

use super::answer::{Answer, MAX_BODY};
use super::tls::{self, Tls};
use super::wire::FetchRequest;
use super::{FailureClass, FetchFailure, connect};

/// The longest that a request may take, from the name's resolution to the body's end. The time in
/// which the key signs counts, but does not end early: that is up to who started this process.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest that a server may take to answer TLS's first word, and then to finish the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for credentials.
pub(super) fn get(
    request: &FetchRequest,
    thing_name: &str,
    tls: &Tls,
) -> Result<Answer, FetchFailure> {
    // At the level of traces ureq's parser dumps each answer, secrets and all, and whoever sets
    // RUST_LOG can't know that.
    log::set_max_level(log::max_level().min(LevelFilter::Debug));
    let endpoint = &request.provider.endpoint;
    let port = match endpoint.port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let uri = format!(
        "https://{}{port}/role-aliases/{}/credentials",
        endpoint.host, request.provider.role_alias
    );
    let config = Agent::config_builder()
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .user_agent(concat!("edgerepl/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(TOTAL_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .build();
    let addresses = Addresses {
        failures: request.failures,
    };
    let agent = Agent::with_parts(config, TlsConnector(tls.clone()), addresses);
    let exchange = || {
        let mut response = agent
            .get(&uri)
            .header("x-amzn-iot-thingname", thing_name)
            .call()?;
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_BODY)
            .read_to_vec()?;
        let header = |name| {
            response
                .headers()
                .get(name)?
                .to_str()
                .ok()
                .map(str::to_owned)
        };
        Ok(Answer {
            status: response.status().as_u16(),
            date: header("date"),
            retry_after: header("retry-after"),
            error_type: header("x-amzn-errortype"),
            request_id: header("x-amzn-requestid"),
            body,
        })
    };
    let answer = exchange().map_err(|error| explain(&error, request));
    match tls.device.mismatch() {
        Some(failure) => Err(failure),
        None => answer,
    }
}

/// Says in a sentence what ureq found.
fn explain(error: &Error, request: &FetchRequest) -> FetchFailure {
    let endpoint = &request.provider.endpoint;
    let message = match error {
        Error::Rustls(error) => return tls::explain(error, request),
        Error::Io(error) => match error.get_ref().and_then(|e| e.downcast_ref()) {
            Some(error) => return tls::explain(error, request),
            None => match error.kind() {
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => {
                    format!("{endpoint} closed the connection before it had answered")
                }
                _ => format!("{endpoint} cannot be reached: {error}"),
            },
        },
        Error::HostNotFound => format!("{endpoint} cannot be reached: its name has no address"),
        Error::Timeout(limit) => format!("{endpoint} did not answer in time ({limit})"),
        Error::BodyExceedsLimit(_) => {
            format!("{endpoint} answered with a body longer than {MAX_BODY} bytes")
        }
        Error::LargeResponseHeader(..) => format!("{endpoint} answered with too long a header"),
        other => format!("{endpoint} did not answer in valid HTTP: {other}"),
    };
    FetchFailure::new(FailureClass::Transient, message)
}

/// All addresses of a name, in the order in which they are tried.
#[derive(Debug)]
struct Addresses {
    failures: usize,
}

impl Resolver for Addresses {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let place = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        // The C library knows no time limit. A thread that is left behind ends with this process.
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(place.to_socket_addrs()));
        let found = receiver
            .recv_timeout(*timeout.after)
            .map_err(|_| Error::Timeout(timeout.reason))??;
        let mut addresses = self.empty();
        // Of more than fit each family has its share.
        for address in connect::order(found, self.failures).into_iter().take(16) {
            addresses.push(address);
        }
        match addresses.is_empty() {
            true => Err(Error::HostNotFound),
            false => Ok(addresses),
        }
    }
}

/// Connects, and speaks TLS.
#[derive(Debug)]
struct TlsConnector(Tls);

impl Connector<()> for TlsConnector {
    type Out = TlsTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let host = details.uri.host().unwrap_or_default();
        let name = tls::server_name(host).map_err(|_| Error::BadUri(host.to_owned()))?;
        let hello = |stream: &mut TcpStream| {
            let config = Arc::clone(&self.0.config);
            let mut connection =
                ClientConnection::new(config, name.clone()).map_err(io::Error::other)?;
            connection.write_tls(stream)?;
            Ok(connection)
        };
        let limit = (*details.timeout.after).min(CONNECT_TIMEOUT);
        let (stream, mut connection) = connect::race(&details.addrs, limit, connect::begin, hello)
            .map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => Error::Timeout(details.timeout.reason),
                _ => Error::Io(error),
            })?;
        stream.set_nodelay(true)?;
        let buffers = || {
            LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            )
        };
        let mut socket = Socket::new(stream, details.timeout);
        connection.complete_io(&mut socket)?;
        self.0
            .witness
            .hear(connection.peer_certificates().unwrap_or_default());
        if self.0.device.mismatch().is_some() {
            return Err(Error::Tls("no common signature scheme"));
        }
        Ok(Some(TlsTransport {
            buffers: buffers(),
            stream: StreamOwned::new(connection, socket),
        }))
    }
}

/// A TCP connection with a time by which all must be done.
struct Socket {
    stream: TcpStream,
    end: Option<Instant>,
    reason: Timeout,
}

impl Socket {
    fn new(stream: TcpStream, timeout: NextTimeout) -> Self {
        let mut socket = Self {
            stream,
            end: None,
            reason: timeout.reason,
        };
        socket.set_timeout(timeout);
        socket
    }

    fn set_timeout(&mut self, timeout: NextTimeout) {
        // None is for what is longer than any clock counts.
        self.end = Instant::now().checked_add(*timeout.after);
        self.reason = timeout.reason;
    }

    /// Does what may wait, for as long as there is time.
    fn timely<T>(
        &mut self,
        limit: fn(&TcpStream, Option<Duration>) -> io::Result<()>,
        mut act: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let left = self
                .end
                .map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(Error::Timeout(self.reason).into_io());
            }
            limit(&self.stream, left)?;
            match act(&mut self.stream) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.timely(TcpStream::set_read_timeout, |stream| stream.read(into))
    }
}

impl Write for Socket {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.timely(TcpStream::set_write_timeout, |stream| stream.write(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, Socket>,
}

impl TlsTransport {
    /// In TLS 1.3 a server rejects the device's certificate when for the device the handshake is
    /// over. What is then written meets a closed connection, and the alert that says why is still
    /// to be read.
    fn last_word(&mut self) -> Option<Error> {
        self.stream.conn.read_tls(&mut self.stream.sock).ok()?;
        self.stream
            .conn
            .process_new_packets()
            .err()
            .map(Error::Rustls)
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        match self.stream.write_all(output) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_word().unwrap_or_else(|| error.into())),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Never kept for another request.
        false
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}
