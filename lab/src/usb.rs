//! An I2C adapter on USB whose cable is a TCP connection (USB/IP), with the lab's chip on its bus: a
//! machine that attaches it has a `/dev/i2c-N` of its own kernel.
//!
//! Owns USB/IP as far as Linux's `vhci-hcd` speaks it, and an adapter as far as its `i2c-tiny-usb`
//! does. What a transfer means is the chip's business.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
};

use crate::{
    chip::Chip,
    error::{Error, Result},
    port::Port,
    sync::Shared,
};

/// What `usbip attach` calls it.
const BUS_ID: &str = "1-1";

/// An adapter, as long as it is not dropped.
pub struct UsbI2cAdapter {
    port: Port,
}

impl UsbI2cAdapter {
    pub(crate) fn start(runtime: Handle, chip: Arc<Shared<Chip>>) -> Result<Self> {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let port = Port::open(runtime, address, move |stream| {
            let chip = Arc::clone(&chip);
            async move {
                // Whoever attached it has gone, or speaks something else.
                let _ = serve(stream, &chip).await;
            }
        });
        let port = port.map_err(Error::doing("the USB adapter has no port"))?;
        Ok(Self { port })
    }

    /// The command that attaches it to a machine that reaches this one by the name `host`.
    pub fn attach_command(&self, host: &str) -> String {
        let port = self.port.address().port();
        format!("usbip --tcp-port {port} attach --remote={host} --busid={BUS_ID}")
    }

    /// Plugs it in, or pulls it out of every machine that attached it.
    pub fn plug(&self, connected: bool) -> Result<()> {
        let done = self.port.set_listening(connected);
        done.map_err(Error::doing("the USB adapter can't be moved"))
    }
}

const VERSION: u16 = 0x0111;
const IMPORT: u16 = 0x8003;
const IMPORTED: u16 = 0x0003;

/// The import of the device, then what its host asks of it, one after the other.
async fn serve(mut stream: TcpStream, chip: &Shared<Chip>) -> io::Result<()> {
    let (_version, code) = (stream.read_u16().await?, stream.read_u16().await?);
    let _status = stream.read_u32().await?;
    if code != IMPORT {
        return Ok(());
    }
    stream.read_exact(&mut [0; 32]).await?;
    let mut answer = Vec::new();
    answer.extend(VERSION.to_be_bytes());
    answer.extend(IMPORTED.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(whole_device());
    stream.write_all(&answer).await?;

    let mut adapter = Adapter {
        chip,
        state: State::Idle,
    };
    loop {
        let header = Header::read(&mut stream).await?;
        let answer = match header.command {
            SUBMIT => submitted(&mut adapter, &header, &mut stream).await?,
            UNLINK => {
                stream.read_exact(&mut [0; 28]).await?;
                // What was asked before has been answered.
                [header.answer(UNLINKED, 0).as_slice(), &[0; 24]].concat()
            }
            _ => return Ok(()),
        };
        stream.write_all(&answer).await?;
    }
}

const SUBMIT: u32 = 1;
const UNLINK: u32 = 2;
const SUBMITTED: u32 = 3;
const UNLINKED: u32 = 4;

/// What each message begins with.
struct Header {
    command: u32,
    number: u32,
    is_read: bool,
}

impl Header {
    async fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let (command, number) = (stream.read_u32().await?, stream.read_u32().await?);
        let _device = stream.read_u32().await?;
        let is_read = stream.read_u32().await? == 1;
        let _endpoint = stream.read_u32().await?;
        Ok(Self {
            command,
            number,
            is_read,
        })
    }

    /// The beginning of an answer, with its status: 0, or the negative number of an error.
    fn answer(&self, command: u32, status: i32) -> Vec<u8> {
        let mut answer = Vec::new();
        for word in [command, self.number, 0, 0, 0] {
            answer.extend(word.to_be_bytes());
        }
        answer.extend(status.to_be_bytes());
        answer
    }
}

/// A control transfer, and its answer.
async fn submitted(
    adapter: &mut Adapter<'_>,
    header: &Header,
    stream: &mut TcpStream,
) -> io::Result<Vec<u8>> {
    let _flags = stream.read_u32().await?;
    let length = stream.read_u32().await?;
    // What is left is for transfers that come at a time of their own.
    stream.read_exact(&mut [0; 12]).await?;
    let mut setup = [0; 8];
    stream.read_exact(&mut setup).await?;
    if length > LONGEST {
        return Err(io::Error::other("a transfer that no I2C bus has"));
    }
    let mut written = vec![0; if header.is_read { 0 } else { length as usize }];
    stream.read_exact(&mut written).await?;

    let done = adapter.control(&Setup::new(setup, length), &written);
    let read = done.as_deref().unwrap_or_default();
    let count = if header.is_read {
        read.len()
    } else {
        written.len()
    };
    let mut answer = header.answer(SUBMITTED, if done.is_some() { 0 } else { STALLED });
    answer.extend((count as u32).to_be_bytes());
    answer.extend([0; 20]);
    answer.extend(read);
    Ok(answer)
}

/// The bytes of a control transfer at most.
const LONGEST: u32 = 4096;

/// EPIPE, by which Linux knows an endpoint that refuses.
const STALLED: i32 = -32;

/// A control transfer's eight bytes, and how much may be read.
struct Setup {
    kind: u8,
    request: u8,
    value: u16,
    index: u16,
    length: usize,
}

impl Setup {
    fn new(bytes: [u8; 8], length: u32) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            kind: bytes[0],
            request: bytes[1],
            value: word(2),
            index: word(4),
            length: length as usize,
        }
    }
}

/// The adapter behind the cable.
struct Adapter<'a> {
    chip: &'a Shared<Chip>,
    state: State,
}

/// How the last transfer on its bus went, as the driver asks for it.
#[derive(Clone, Copy)]
enum State {
    Idle = 0,
    Acknowledged = 1,
    NobodyThere = 2,
}

impl Adapter<'_> {
    /// What is read, which is nothing for a transfer that writes; none where it is refused.
    fn control(&mut self, setup: &Setup, written: &[u8]) -> Option<Vec<u8>> {
        const GET_STATUS: (u8, u8) = (0x80, 0);
        const GET_DESCRIPTOR: (u8, u8) = (0x80, 6);
        const FROM_HOST: u8 = 0x00;
        const VENDOR: u8 = 0x40;
        let mut read = match (setup.kind, setup.request) {
            GET_STATUS => vec![0, 0],
            GET_DESCRIPTOR => descriptor(setup.value)?,
            // An address, a configuration: it has one.
            (FROM_HOST, _) => Vec::new(),
            (kind, request) if kind & 0x60 == VENDOR => self.bus(request, setup, written)?,
            _ => return None,
        };
        read.truncate(setup.length);
        Some(read)
    }

    /// The requests of i2c-tiny-usb.
    fn bus(&mut self, request: u8, setup: &Setup, written: &[u8]) -> Option<Vec<u8>> {
        /// The flag of a transfer that reads.
        const READ: u16 = 1;
        match request {
            // Echo.
            0 => Some(setup.value.to_le_bytes().to_vec()),
            // What it can do: plain I2C, and SMBus by it.
            1 => Some(0x0eff_0009_u32.to_le_bytes().to_vec()),
            // How fast it is.
            2 => Some(Vec::new()),
            3 => Some(vec![self.state as u8]),
            // A transfer, whether it begins or ends a series, or both.
            4..=7 => {
                let address = u8::try_from(setup.index).ok()?;
                let mut read = Vec::new();
                let done = if setup.value & READ == 0 {
                    self.chip.lock().write(address, written)
                } else {
                    read.resize(setup.length, 0);
                    self.chip.lock().read(address, &mut read)
                };
                self.state = match done {
                    Ok(()) => State::Acknowledged,
                    Err(_) => State::NobodyThere,
                };
                Some(read)
            }
            _ => None,
        }
    }
}

/// The numbers that i2c-tiny-usb has from its maker.
const VENDOR_ID: u16 = 0x0403;
const PRODUCT_ID: u16 = 0xc631;
const RELEASE: u16 = 0x0205;

fn descriptor(value: u16) -> Option<Vec<u8>> {
    let [index, kind] = value.to_le_bytes();
    match kind {
        1 => {
            // USB 1.1, a class of its maker's, 8 bytes at a time.
            let mut bytes = vec![18, 1, 0x10, 0x01, 0xff, 0, 0, 8];
            for id in [VENDOR_ID, PRODUCT_ID, RELEASE] {
                bytes.extend(id.to_le_bytes());
            }
            // Its strings, and one configuration.
            bytes.extend([1, 2, 0, 1]);
            Some(bytes)
        }
        // One interface, and no endpoint besides the one for control.
        2 => Some(vec![
            9, 2, 18, 0, 1, 1, 0, 0x80, 5, 9, 4, 0, 0, 0, 0xff, 0, 0, 0,
        ]),
        3 => match index {
            // English.
            0 => Some(vec![4, 3, 0x09, 0x04]),
            1 => Some(string("edgerepl")),
            2 => Some(string("i2c-tiny-usb")),
            _ => None,
        },
        _ => None,
    }
}

fn string(text: &str) -> Vec<u8> {
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let length = u8::try_from(units.len() + 2).unwrap_or(u8::MAX);
    [&[length, 3], units.as_slice()].concat()
}

/// The device, as a host that imports it wants to know it beforehand.
fn whole_device() -> Vec<u8> {
    const LOW_SPEED: u32 = 1;
    let mut bytes = Vec::new();
    for (text, length) in [("/sys/devices/lab/1-1", 256), (BUS_ID, 32)] {
        let end = bytes.len() + length;
        bytes.extend(text.as_bytes());
        bytes.resize(end, 0);
    }
    for number in [1, 2, LOW_SPEED] {
        bytes.extend(number.to_be_bytes());
    }
    for id in [VENDOR_ID, PRODUCT_ID, RELEASE] {
        bytes.extend(id.to_be_bytes());
    }
    // Its class; its configuration, of one, with one interface.
    bytes.extend([0xff, 0, 0, 1, 1, 1]);
    bytes
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use p256::SecretKey;
    use tokio::runtime::Builder;

    use super::*;

    /// The other end of the cable.
    struct Host(TcpStream);

    impl Host {
        fn import(adapter: &UsbI2cAdapter) -> Self {
            let stream = TcpStream::connect(adapter.port.address()).expect("the port");
            let mut host = Self(stream);
            let mut request = vec![0x01, 0x11, 0x80, 0x03, 0, 0, 0, 0];
            request.extend(BUS_ID.as_bytes());
            request.resize(40, 0);
            host.0.write_all(&request).expect("sent");
            let mut answer = [0; 320];
            host.0.read_exact(&mut answer).expect("the device");
            assert_eq!(answer[..8], [0x01, 0x11, 0, 3, 0, 0, 0, 0]);
            assert_eq!(answer[308..312], [0x04, 0x03, 0xc6, 0x31]);
            host
        }

        /// A control transfer: its status, and what was read or how much was written.
        fn control(&mut self, setup: [u8; 8], length: u32, written: &[u8]) -> (i32, Vec<u8>) {
            let is_read = setup[0] & 0x80 != 0;
            let mut message = Vec::new();
            for word in [SUBMIT, 7, 0, is_read.into(), 0, 0, length, 0, 0, 0] {
                message.extend(word.to_be_bytes());
            }
            message.extend(setup);
            message.extend(written);
            self.0.write_all(&message).expect("sent");
            let mut answer = [0; 48];
            self.0.read_exact(&mut answer).expect("an answer");
            let word = |at: usize| <[u8; 4]>::try_from(&answer[at..at + 4]).expect("four bytes");
            assert_eq!(u32::from_be_bytes(word(0)), SUBMITTED);
            assert_eq!(u32::from_be_bytes(word(4)), 7);
            let count = u32::from_be_bytes(word(24)) as usize;
            let mut read = vec![0; if is_read { count } else { 0 }];
            self.0.read_exact(&mut read).expect("what was read");
            (i32::from_be_bytes(word(20)), read)
        }

        fn state(&mut self) -> u8 {
            self.control([0xc0, 3, 0, 0, 0, 0, 1, 0], 1, &[]).1[0]
        }
    }

    #[test]
    fn carries_what_a_kernel_asks_to_the_chip_and_back() {
        let runtime = Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.expect("threads");
        let key = SecretKey::from_slice(&[7; 32]).expect("a key");
        let chip = Arc::new(Shared::new(Chip::new(key, [1; 9])));
        let adapter = UsbI2cAdapter::start(runtime.handle().clone(), chip).expect("an adapter");
        let mut host = Host::import(&adapter);
        let (status, device) = host.control([0x80, 6, 0, 1, 0, 0, 18, 0], 18, &[]);
        assert_eq!((status, device.len()), (0, 18));
        let (status, echo) = host.control([0xc0, 0, 0xef, 0xbe, 0, 0, 2, 0], 2, &[]);
        assert_eq!((status, echo), (0, vec![0xef, 0xbe]));
        assert_eq!(
            host.control([0x80, 99, 0, 0, 0, 0, 0, 0], 0, &[]).0,
            STALLED
        );

        // A chip that sleeps, is woken, and says so.
        assert_eq!(host.control([0x40, 7, 0, 0, 0x60, 0, 1, 0], 1, &[0]).0, 0);
        assert_eq!(host.state(), State::NobodyThere as u8);
        host.control([0x40, 7, 0, 0, 0, 0, 1, 0], 1, &[0]);
        std::thread::sleep(std::time::Duration::from_millis(2));
        let (status, word) = host.control([0xc0, 7, 1, 0, 0x60, 0, 4, 0], 4, &[]);
        assert_eq!((status, word), (0, vec![0x04, 0x11, 0x33, 0x43]));
        assert_eq!(host.state(), State::Acknowledged as u8);

        // The cable is pulled.
        adapter.plug(false).expect("pulled");
        assert_eq!(host.0.read(&mut [0]).ok(), Some(0));
    }
}
