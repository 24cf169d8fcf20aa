//! The device lab: everything that edgerepl talks to, on one machine and without the cloud.
//!
//! What it holds is real where it can be: mutual TLS with a CA of its own, keys in a PKCS#11 token
//! (SoftHSM), S3 that verifies signatures and refuses a session from the second it ends, and the
//! real Litestream. What it imitates (the credential provider's answers) follows AWS's contract,
//! and breaks it only where a test orders so.
//!
//! ```no_run
//! use std::time::Duration;
//! use edgerepl_lab::{KeyKind, Lab, LabOptions};
//!
//! # fn main() -> Result<(), edgerepl_lab::Error> {
//! let lab = Lab::start(LabOptions { lifetime: Duration::from_secs(20), ..Default::default() })?;
//! let device = lab.provision_token(KeyKind::EcdsaP256, "thing-1")?;
//! println!("endpoint = {:?}", lab.provider().endpoint());
//! println!("private_key = {:?}", device.private_key);
//! # Ok(())
//! # }
//! ```
//!
//! The interface is synchronous; the servers run on threads of the lab's own and stop when it is
//! dropped.

mod bucket;
mod chip;
mod comparison;
mod device;
mod disk;
mod error;
mod faulty;
mod files;
mod i2c;
mod line;
mod litestream;
mod parts;
mod pki;
mod port;
mod provider;
mod proxy;
mod registry;
mod s3;
mod secure_element;
mod sessions;
mod site;
mod sync;
pub mod token;
mod updates;
mod usb;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use edgerepl_tools as tools;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

pub use crate::{
    bucket::{Copied, Objects},
    chip::{ChipCounts, ChipFaults},
    comparison::Comparison,
    device::Device,
    disk::SmallDisk,
    error::{Error, Result},
    faulty::FaultyToken,
    i2c::I2cBus,
    pki::{KeyKind, ServerCertificate},
    provider::{
        Behaviour, ClientSignatures, ConnectionLog, DateHeader, Door, Expected, Handshake,
        OddAnswer, Provider, RequestLog, TlsVersions, odd_answers,
    },
    proxy::{ProxyWay, S3Proxy},
    s3::{S3, S3Fault, S3Request},
    secure_element::ModuleFolder,
    sessions::Session,
    site::{Daemon, Site},
    updates::{Sent, Updates},
    usb::UsbI2cAdapter,
};
use crate::{pki::Pki, provider::Contract, registry::Registry, sessions::Sessions};

/// How a lab is set up.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// How long the provider's sessions live.
    pub lifetime: Duration,
    /// The only role alias that the provider knows.
    pub role_alias: String,
    /// The address that both servers listen on; their ports are free ones.
    pub bind: IpAddr,
    /// The host name in the provider's certificate and endpoint, and in S3's where `bind` is no
    /// address to connect to. A name, as TLS names no addresses; clients have to resolve it.
    pub server_name: String,
    /// Where the lab keeps its files, and leaves them. Without one it uses a temporary directory
    /// and removes it.
    pub root: Option<PathBuf>,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(15 * 60),
            role_alias: "edgerepl".to_owned(),
            bind: Ipv4Addr::LOCALHOST.into(),
            server_name: "localhost".to_owned(),
            root: None,
        }
    }
}

/// A running lab.
pub struct Lab {
    provider: Provider,
    s3: S3,
    pki: Arc<Pki>,
    registry: Arc<Registry>,
    root: PathBuf,
    ca_file: PathBuf,
    /// Taken in `drop`.
    runtime: Option<Runtime>,
    /// Removed last: the servers write into it.
    _temporary: Option<TempDir>,
}

impl Lab {
    /// Starts both servers; they accept connections when this returns.
    pub fn start(options: LabOptions) -> Result<Self> {
        let (root, temporary) = root_directory(options.root)?;
        let pki = Arc::new(Pki::new(&options.server_name)?);
        let ca_file = root.join("ca.pem");
        std::fs::write(&ca_file, pki.bundle()).map_err(Error::doing(ca_file.display()))?;

        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("lab")
            .enable_all()
            .build()
            .map_err(Error::doing("the lab's threads can't be started"))?;
        let sessions = Arc::new(Sessions::default());
        let registry = Arc::new(Registry::default());
        let s3 = S3::start(
            runtime.handle().clone(),
            options.bind,
            &options.server_name,
            &root.join("s3"),
            sessions.clone(),
        )?;
        let contract = Contract {
            server_name: options.server_name,
            role_alias: options.role_alias,
            lifetime: options.lifetime,
        };
        let provider = Provider::start(
            runtime.handle().clone(),
            options.bind,
            contract,
            pki.clone(),
            registry.clone(),
            sessions,
        )?;
        let runtime = Some(runtime);
        Ok(Self {
            provider,
            s3,
            pki,
            registry,
            root,
            ca_file,
            runtime,
            _temporary: temporary,
        })
    }

    /// The directory of everything that the lab writes.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The roots that a device trusts: a PEM bundle of two, the right one last.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// A chain such as the provider shows, with a key that nobody has: PEM, leaf first.
    pub fn server_chain(&self, certificate: ServerCertificate) -> Result<String> {
        self.pki.server_pem(certificate)
    }

    /// The credential provider.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// S3.
    pub fn s3(&self) -> &S3 {
        &self.s3
    }

    /// A proxy in front of S3, which passes all until it is told otherwise.
    pub fn proxy(&self) -> Result<S3Proxy> {
        let runtime = self.runtime.as_ref();
        let runtime = runtime.ok_or_else(|| Error::new("the lab has stopped"))?;
        S3Proxy::start(runtime.handle().clone(), &self.s3)
    }

    /// A server of updates: the files in a folder, for registered devices.
    pub fn updates(&self, folder: &Path) -> Result<Updates> {
        let runtime = self.runtime.as_ref();
        let runtime = runtime.ok_or_else(|| Error::new("the lab has stopped"))?;
        Updates::start(
            runtime.handle().clone(),
            self.provider.address().ip(),
            self.provider.server_name(),
            self.pki.clone(),
            self.registry.clone(),
            folder,
        )
    }

    /// A new, registered device with its key in a PEM file.
    pub fn provision_pem(&self, kind: KeyKind, thing_name: &str) -> Result<Device> {
        self.provision(Device::with_pem, kind, thing_name)
    }

    /// A new, registered device with its key in a SoftHSM token of its own.
    pub fn provision_token(&self, kind: KeyKind, thing_name: &str) -> Result<Device> {
        self.provision(Device::with_token, kind, thing_name)
    }

    /// A new, registered device with its key in a token that has faults on order, and the token.
    pub fn provision_faulty(&self, thing_name: &str) -> Result<(Device, FaultyToken)> {
        let directory = self.device_directory(thing_name);
        let (device, token) = Device::with_faulty_token(&self.pki, &directory, thing_name)?;
        self.register(&device);
        Ok((device, token))
    }

    /// A new, registered device with its key in a simulated ATECC608, behind Microchip's own module,
    /// and the bus that the chip is on. There can be one in a module's folder at a time.
    pub fn provision_chip(
        &self,
        thing_name: &str,
        module: &ModuleFolder,
    ) -> Result<(Device, I2cBus)> {
        let directory = self.device_directory(thing_name);
        let (device, bus) = Device::with_chip(&self.pki, &directory, thing_name, module)?;
        self.register(&device);
        Ok((device, bus))
    }

    /// A USB adapter with that bus, for a machine that has none of its own.
    pub fn usb_adapter(&self, bus: &I2cBus) -> Result<UsbI2cAdapter> {
        let runtime = self.runtime.as_ref();
        let runtime = runtime.ok_or_else(|| Error::new("the lab has stopped"))?;
        UsbI2cAdapter::start(runtime.handle().clone(), bus.chip())
    }

    fn provision(
        &self,
        make: fn(&Pki, &Path, KeyKind, &str) -> Result<Device>,
        kind: KeyKind,
        thing_name: &str,
    ) -> Result<Device> {
        let directory = self.device_directory(thing_name);
        let device = make(&self.pki, &directory, kind, thing_name)?;
        self.register(&device);
        Ok(device)
    }

    /// Registers a device's certificate, again after [`revoke`](Self::revoke).
    pub fn register(&self, device: &Device) {
        self.registry
            .register(&device.certificate_der, &device.thing_name);
    }

    /// Signs a certificate request of a device's own making; the certificate takes the place of the
    /// one it has, and is registered beside it.
    pub fn certify(&self, device: &mut Device, request: &str) -> Result<()> {
        device.certify(&self.pki, request)?;
        self.register(device);
        Ok(())
    }

    /// Registers a device's certificate for another thing than its own name says.
    pub fn attach(&self, device: &Device, thing_name: &str) {
        self.registry.register(&device.certificate_der, thing_name);
    }

    /// Deactivates a device's certificate: its next handshake fails.
    pub fn revoke(&self, device: &Device) {
        self.registry.revoke(&device.certificate_der);
    }

    /// Takes a device's certificate off the register, as if this cloud had never seen it.
    pub fn forget(&self, device: &Device) {
        self.registry.forget(&device.certificate_der);
    }

    /// Writes `litestream.yml` beside `database`: Litestream 0.5, with a control socket.
    pub fn litestream_config(&self, database: &Path, socket: &Path) -> Result<PathBuf> {
        litestream::write_config(&self.s3.endpoint(), database, socket)
    }

    /// The same, with the proxy in the place of S3.
    pub fn litestream_config_behind(
        &self,
        proxy: &S3Proxy,
        database: &Path,
        socket: &Path,
    ) -> Result<PathBuf> {
        litestream::write_config(&proxy.endpoint(), database, socket)
    }

    /// What that configuration says, for a device with another file system than the lab's, or with
    /// more databases: each but the first has its replica under its own file name.
    pub fn litestream_config_text(&self, databases: &[&Path], socket: &Path) -> String {
        litestream::config(&self.s3.endpoint(), databases, socket)
    }

    /// Writes `litestream-0.3.yml` beside `database`: Litestream 0.3, which has no control socket.
    pub fn litestream_config_0_3(&self, database: &Path) -> Result<PathBuf> {
        litestream::write_config_0_3(&self.s3, database)
    }

    /// Restores what S3 holds of a thing's database to `output`, which must not exist yet.
    pub fn restore(&self, thing_name: &str, output: &Path) -> Result<()> {
        litestream::restore(&self.s3, &format!("{thing_name}/app.db"), output)
    }

    /// Restores the replica of a thing aside and compares every row of every table with its live
    /// database.
    pub fn compare(&self, thing_name: &str, live: &Path) -> Result<Comparison> {
        self.compare_with(&format!("{thing_name}/app.db"), live)
    }

    /// The same with the replica under `prefix`, such as that of a thing's second database.
    pub fn compare_with(&self, prefix: &str, live: &Path) -> Result<Comparison> {
        let aside = TempDir::with_prefix_in("restored-", &self.root)
            .map_err(Error::doing("a folder to restore to"))?;
        let restored = aside.path().join("app.db");
        litestream::restore(&self.s3, prefix, &restored)?;
        Comparison::of(live, &restored).map_err(Error::doing("comparing the databases"))
    }

    fn device_directory(&self, thing_name: &str) -> PathBuf {
        self.root.join("devices").join(thing_name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A file operation of S3 may still run: the directory goes after it.
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }
}

fn root_directory(given: Option<PathBuf>) -> Result<(PathBuf, Option<TempDir>)> {
    match given {
        Some(root) => {
            files::make_directory(&root)?;
            let root = root.canonicalize().map_err(Error::doing(root.display()))?;
            Ok((root, None))
        }
        None => {
            let temporary = TempDir::with_prefix("edgerepl-lab-")
                .map_err(Error::doing("a temporary directory for the lab"))?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}
