//! The smallest client that can talk to the credential provider: one handshake, one request.

use std::{
    error::Error,
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use edgerepl_lab::{Device, Lab};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The answer to a good request: its head and its body.
pub(crate) fn fetch(lab: &Lab, device: Option<&Device>) -> Result<(String, String)> {
    request(lab, device, "/role-aliases/edgerepl/credentials", None)
}

pub(crate) fn request(
    lab: &Lab,
    device: Option<&Device>,
    path: &str,
    thing_name: Option<&str>,
) -> Result<(String, String)> {
    converse(connect(lab, device, true)?, path, thing_name)
}

/// A good request on a connection that never said which server it wants.
pub(crate) fn fetch_without_server_name(lab: &Lab, device: &Device) -> Result<(String, String)> {
    converse(
        connect(lab, Some(device), false)?,
        "/role-aliases/edgerepl/credentials",
        None,
    )
}

fn converse(
    mut stream: StreamOwned<ClientConnection, TcpStream>,
    path: &str,
    thing_name: Option<&str>,
) -> Result<(String, String)> {
    let thing = thing_name.map(|name| format!("x-amzn-iot-thingname: {name}\r\n"));
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\n{}Connection: close\r\n\r\n",
        thing.unwrap_or_default()
    )?;
    let mut answer = Vec::new();
    (&mut stream).take(300_000).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((head.to_owned(), body.to_owned()))
}

fn connect(
    lab: &Lab,
    device: Option<&Device>,
    with_server_name: bool,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(lab.ca_file())? {
        roots.add(root?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match device {
        Some(device) => builder.with_client_auth_cert(
            CertificateDer::pem_file_iter(&device.certificate)?
                .collect::<std::result::Result<_, _>>()?,
            PrivateKeyDer::from_pem_file(&device.private_key)?,
        )?,
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = with_server_name;
    let endpoint = lab.provider().endpoint();
    let (host, _) = endpoint.split_once(':').ok_or("the endpoint has no port")?;
    let connection =
        ClientConnection::new(Arc::new(config), ServerName::try_from(host.to_owned())?)?;
    let socket = TcpStream::connect(lab.provider().address())?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(StreamOwned::new(connection, socket))
}
