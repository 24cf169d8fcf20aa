//! A TCP port that a test can close and open again, always with the same number. It owns accepting;
//! what is said on a connection is its server's business.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Handle,
    task::{JoinHandle, JoinSet},
};

use crate::sync::Shared;

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;
type Serve = Arc<dyn Fn(TcpStream) -> Connection + Send + Sync>;

pub(crate) struct Port {
    runtime: Handle,
    address: SocketAddr,
    serve: Serve,
    state: Shared<State>,
}

enum State {
    /// The accepting task owns the listener and all its connections.
    Open(JoinHandle<()>),
    /// Bound but not listening: clients are refused, and nobody else gets the number meanwhile.
    Closed(TcpSocket),
    /// Between the two.
    Moving,
}

impl Port {
    /// Binds `address` (port 0: any) and accepts at once.
    pub(crate) fn open<F, C>(runtime: Handle, address: SocketAddr, serve: F) -> io::Result<Self>
    where
        F: Fn(TcpStream) -> C + Send + Sync + 'static,
        C: Future<Output = ()> + Send + 'static,
    {
        let socket = bound(address)?;
        let address = socket.local_addr()?;
        let port = Self {
            runtime,
            address,
            serve: Arc::new(move |stream| Box::pin(serve(stream))),
            state: Shared::new(State::Closed(socket)),
        };
        port.set_listening(true)?;
        Ok(port)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Off: connections that stand are cut, new ones refused.
    pub(crate) fn set_listening(&self, on: bool) -> io::Result<()> {
        let mut state = self.state.lock();
        *state = match (std::mem::replace(&mut *state, State::Moving), on) {
            (State::Closed(socket), true) => self.listen(socket)?,
            (State::Open(accepting), false) => {
                stop(&accepting);
                State::Closed(bound_again(self.address)?)
            }
            (State::Moving, true) => self.listen(bound_again(self.address)?)?,
            (State::Moving, false) => State::Closed(bound_again(self.address)?),
            (unchanged, _) => unchanged,
        };
        Ok(())
    }

    fn listen(&self, socket: TcpSocket) -> io::Result<State> {
        let _context = self.runtime.enter();
        let listener = socket.listen(128)?;
        Ok(State::Open(
            self.runtime.spawn(accept(listener, self.serve.clone())),
        ))
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The same number: in the moment between the two a client of somebody else's may have it as its own.
fn bound_again(address: SocketAddr) -> io::Result<TcpSocket> {
    let begun = Instant::now();
    loop {
        match bound(address) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(50));
            }
            bound => return bound,
        }
    }
}

/// Connections on this machine last no longer.
const PATIENCE: Duration = Duration::from_secs(10);

async fn accept(listener: TcpListener, serve: Serve) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without it a rotation's figures would measure Nagle and delayed ACKs.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(stream));
                }
                // Out of descriptors: the only way out is that connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Aborting is asynchronous: the listener is gone when the task is.
fn stop(accepting: &JoinHandle<()>) {
    accepting.abort();
    while !accepting.is_finished() {
        thread::sleep(Duration::from_millis(1));
    }
}
