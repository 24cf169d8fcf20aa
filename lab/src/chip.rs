//! A simulated ATECC608: what it answers on its bus, and how long it takes, with faults on order.
//!
//! Owns the wire contract of Microchip's data sheet, as far as a PKCS#11 module needs it to sign:
//! power states, packets, the commands Info, Read, Random, Nonce, GenKey and Sign. It knows no bus
//! and no host. What it does not model: zones that are open, counters, monotonic or otherwise, AES,
//! ECDH, secure boot, and what a command costs but for Sign.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use p256::{
    SecretKey,
    ecdsa::{Signature, SigningKey, signature::hazmat::PrehashSigner},
    elliptic_curve::sec1::ToSec1Point,
};
use ring::rand::{SecureRandom, SystemRandom};

/// The address in 7 bits that the chip comes with.
const ADDRESS: u8 = 0x60;

/// The general call: the low level that its first bit makes wakes the chip.
const WAKE: u8 = 0x00;

/// Awake for so long, it falls asleep, whatever it does.
const WATCHDOG: Duration = Duration::from_millis(1300);

/// From the wake to the first word, and what each command but Sign takes, in the order of the data
/// sheet's typical times.
const WAKE_DELAY: Duration = Duration::from_micros(1500);
const COMMAND_TIME: Duration = Duration::from_millis(5);
const RANDOM_TIME: Duration = Duration::from_millis(23);

/// What is said after a wake, and of a command that can't be done.
const AFTER_WAKE: u8 = 0x11;
const PARSE_ERROR: u8 = 0x03;
const EXECUTION_ERROR: u8 = 0x0f;
const CRC_ERROR: u8 = 0xff;

/// The configuration zone, in bytes.
const CONFIG: usize = 128;

/// Nobody answered at that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nack;

/// What goes wrong with a chip.
#[derive(Clone, Debug)]
pub struct ChipFaults {
    /// It is not on the bus.
    pub absent: bool,
    /// It never ends what it is at.
    pub busy: bool,
    /// Every so-manieth command is not acknowledged.
    pub nack_every: Option<u32>,
    /// The answer to every so-manieth command has a wrong checksum.
    pub garble_every: Option<u32>,
    /// It falls asleep right after every so-manieth command.
    pub doze_every: Option<u32>,
    /// What a signature takes: 60 ms as a chip is delivered, up to 665 ms with its clock divided.
    pub sign_time: Duration,
}

impl Default for ChipFaults {
    fn default() -> Self {
        Self {
            absent: false,
            busy: false,
            nack_every: None,
            garble_every: None,
            doze_every: None,
            sign_time: Duration::from_millis(60),
        }
    }
}

/// What a chip was asked to do, by the commands' names in the data sheet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChipCounts {
    /// Of any kind, those that were not acknowledged among them.
    pub commands: u32,
    /// Sign.
    pub signatures: u32,
    /// How often something went wrong on order.
    pub faults: u32,
}

/// The chip.
pub(crate) struct Chip {
    /// What is ordered to go wrong.
    pub(crate) faults: ChipFaults,
    /// What was asked of it.
    pub(crate) counts: ChipCounts,
    keys: BTreeMap<u8, SecretKey>,
    config: [u8; CONFIG],
    power: Power,
    /// What a host reads, and from when on.
    answer: Answer,
    /// What a Nonce has left for a Sign; gone with sleep.
    digest: Option<[u8; 32]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    /// All that is volatile is lost.
    Asleep,
    /// As asleep, but nothing is lost.
    Idle,
    Awake(Instant),
}

struct Answer {
    bytes: Vec<u8>,
    ready: Instant,
    read: usize,
}

impl Chip {
    /// A chip with its zones locked, and this key in slot 0.
    pub(crate) fn new(key: SecretKey, serial: [u8; 9]) -> Self {
        let mut config = [0; CONFIG];
        config[..4].copy_from_slice(&serial[..4]);
        config[4..8].copy_from_slice(&REVISION);
        config[8..13].copy_from_slice(&serial[4..]);
        config[14] = 0x01;
        config[16] = ADDRESS << 1;
        for slot in 0..16 {
            // Secret, of a key that signs what comes from outside; P-256, private.
            config[20 + 2 * slot..][..2].copy_from_slice(&[0x83, 0x20]);
            config[96 + 2 * slot..][..2].copy_from_slice(&[0x33, 0x00]);
        }
        // Both zones are locked, and no slot by itself.
        config[88..90].fill(0xff);
        Self {
            faults: ChipFaults::default(),
            counts: ChipCounts::default(),
            keys: BTreeMap::from([(0, key)]),
            config,
            power: Power::Asleep,
            answer: Answer {
                bytes: Vec::new(),
                ready: Instant::now(),
                read: 0,
            },
            digest: None,
        }
    }

    /// A host writes to an address.
    ///
    /// # Errors
    /// [`Nack`] where nobody is there, or nobody who listens.
    pub(crate) fn write(&mut self, address: u8, bytes: &[u8]) -> Result<(), Nack> {
        self.pass_time();
        if self.faults.absent {
            return Err(Nack);
        }
        if address == WAKE {
            self.wake();
            // It wakes by the level of the line, and acknowledges nothing.
            return Err(Nack);
        }
        if address != ADDRESS || !self.listens() {
            return Err(Nack);
        }
        match bytes.split_first() {
            Some((0x00, _)) => self.answer.read = 0,
            Some((0x01, _)) => self.sleep(),
            Some((0x02, _)) => self.power = Power::Idle,
            Some((0x03, packet)) => return self.command(packet),
            _ => return Err(Nack),
        }
        Ok(())
    }

    /// A host reads from an address.
    ///
    /// # Errors
    /// [`Nack`] as for writing, and while it is busy.
    pub(crate) fn read(&mut self, address: u8, buffer: &mut [u8]) -> Result<(), Nack> {
        self.pass_time();
        if self.faults.absent || address != ADDRESS || !self.listens() {
            return Err(Nack);
        }
        for byte in buffer {
            *byte = self
                .answer
                .bytes
                .get(self.answer.read)
                .copied()
                .unwrap_or(0xff);
            self.answer.read += 1;
        }
        Ok(())
    }

    fn pass_time(&mut self) {
        if let Power::Awake(since) = self.power
            && since.elapsed() > WATCHDOG
        {
            self.sleep();
        }
    }

    fn listens(&self) -> bool {
        matches!(self.power, Power::Awake(_))
            && !self.faults.busy
            && self.answer.ready <= Instant::now()
    }

    fn wake(&mut self) {
        if matches!(self.power, Power::Awake(_)) {
            return;
        }
        self.power = Power::Awake(Instant::now());
        self.say(&[AFTER_WAKE], WAKE_DELAY);
    }

    fn sleep(&mut self) {
        self.power = Power::Asleep;
        self.digest = None;
    }

    /// Count, opcode, first parameter, second parameter, data, checksum.
    fn command(&mut self, packet: &[u8]) -> Result<(), Nack> {
        self.counts.commands += 1;
        let number = self.counts.commands;
        let is_due = |every: Option<u32>| every.is_some_and(|every| number.is_multiple_of(every));
        if is_due(self.faults.nack_every) {
            self.counts.faults += 1;
            return Err(Nack);
        }
        let Some((body, checksum)) = packet.split_last_chunk::<2>() else {
            return Err(Nack);
        };
        if usize::from(packet[0]) != packet.len() || body.len() < 5 || crc(body) != *checksum {
            self.say(&[CRC_ERROR], COMMAND_TIME);
            return Ok(());
        }
        let second = u16::from_le_bytes([body[3], body[4]]);
        match self.execute(body[1], body[2], second, &body[5..]) {
            Ok((answer, time)) => self.say(&answer, time),
            Err(status) => self.say(&[status], COMMAND_TIME),
        }
        if is_due(self.faults.garble_every) {
            self.counts.faults += 1;
            if let Some(last) = self.answer.bytes.last_mut() {
                *last ^= 1;
            }
        }
        if is_due(self.faults.doze_every) {
            self.counts.faults += 1;
            self.sleep();
        }
        Ok(())
    }

    fn execute(
        &mut self,
        opcode: u8,
        first: u8,
        second: u16,
        data: &[u8],
    ) -> Result<(Vec<u8>, Duration), u8> {
        let slot = second.to_le_bytes()[0];
        match (opcode, first) {
            (0x30, 0x00) => Ok((REVISION.to_vec(), COMMAND_TIME)),
            (0x02, zone) => Ok((self.read_config(zone, second)?, COMMAND_TIME)),
            (0x1b, _) => Ok((random()?.to_vec(), RANDOM_TIME)),
            // What comes from outside passes into the buffer for digests.
            (0x16, 0x43) => {
                self.digest = Some(data.try_into().map_err(|_| PARSE_ERROR)?);
                Ok((vec![0], COMMAND_TIME))
            }
            (0x40, mode) => {
                if mode & 0x04 != 0 {
                    let key = SecretKey::from_slice(&random()?).map_err(|_| EXECUTION_ERROR)?;
                    self.keys.insert(slot, key);
                }
                let key = self.keys.get(&slot).ok_or(EXECUTION_ERROR)?;
                let point = key.public_key().to_sec1_point(false);
                Ok((point.as_bytes()[1..].to_vec(), self.faults.sign_time))
            }
            // The digest is the one in the buffer for digests.
            (0x41, 0xa0) => {
                self.counts.signatures += 1;
                let digest = self.digest.take().ok_or(EXECUTION_ERROR)?;
                let key = SigningKey::from(self.keys.get(&slot).ok_or(EXECUTION_ERROR)?);
                let signed: Signature = key.sign_prehash(&digest).map_err(|_| EXECUTION_ERROR)?;
                Ok((signed.to_bytes().to_vec(), self.faults.sign_time))
            }
            _ => Err(PARSE_ERROR),
        }
    }

    /// Four bytes, or a block of 32, of the configuration zone.
    fn read_config(&self, zone: u8, address: u16) -> Result<Vec<u8>, u8> {
        let start = usize::from(address) * 4;
        let (start, length) = match zone {
            0x00 => (start, 4),
            0x80 => (start & !31, 32),
            _ => return Err(EXECUTION_ERROR),
        };
        let bytes = self.config.get(start..start + length);
        bytes.map(<[u8]>::to_vec).ok_or(PARSE_ERROR)
    }

    fn say(&mut self, data: &[u8], after: Duration) {
        let mut bytes = vec![u8::try_from(data.len() + 3).unwrap_or(u8::MAX)];
        bytes.extend(data);
        bytes.extend(crc(&bytes));
        self.answer = Answer {
            bytes,
            ready: Instant::now() + after,
            read: 0,
        };
    }
}

/// What Info says: an ATECC608, third revision.
const REVISION: [u8; 4] = [0x00, 0x00, 0x60, 0x02];

fn random() -> Result<[u8; 32], u8> {
    let mut bytes = [0; 32];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map(|()| bytes).map_err(|_| EXECUTION_ERROR)
}

/// CRC-16 with the polynomial 0x8005, bits of a byte from the lowest on.
fn crc(bytes: &[u8]) -> [u8; 2] {
    let mut register = 0u16;
    for byte in bytes {
        for bit in 0..8 {
            let data = byte >> bit & 1;
            let top = (register >> 15) as u8;
            register <<= 1;
            if data != top {
                register ^= 0x8005;
            }
        }
    }
    register.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use p256::ecdsa::{VerifyingKey, signature::hazmat::PrehashVerifier};

    use super::*;

    fn chip() -> Chip {
        let key = SecretKey::from_slice(&[7; 32]).expect("a key");
        Chip::new(key, [1, 0x23, 4, 5, 6, 7, 8, 9, 0xee])
    }

    fn packet(opcode: u8, first: u8, second: u16, data: &[u8]) -> Vec<u8> {
        let mut packet = vec![data.len() as u8 + 7, opcode, first];
        packet.extend(second.to_le_bytes());
        packet.extend(data);
        let checksum = crc(&packet);
        [&[0x03], packet.as_slice(), &checksum].concat()
    }

    /// Waits as a host does, then reads the answer.
    fn answer(chip: &mut Chip) -> Option<Vec<u8>> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            let mut count = [0];
            if chip.write(ADDRESS, &[0]).is_ok() && chip.read(ADDRESS, &mut count).is_ok() {
                let mut rest = vec![0; usize::from(count[0]) - 1];
                chip.read(ADDRESS, &mut rest).ok()?;
                let whole = [&count[..], &rest].concat();
                let (body, checksum) = whole.split_last_chunk::<2>()?;
                return (crc(body) == *checksum).then(|| body[1..].to_vec());
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    }

    fn wake(chip: &mut Chip) {
        assert_eq!(chip.write(0, &[1]), Err(Nack));
        assert_eq!(answer(chip), Some(vec![0x11]));
    }

    fn ask(chip: &mut Chip, opcode: u8, first: u8, second: u16, data: &[u8]) -> Option<Vec<u8>> {
        chip.write(ADDRESS, &packet(opcode, first, second, data))
            .ok()?;
        answer(chip)
    }

    #[test]
    fn says_what_is_known_of_real_ones() {
        let mut chip = chip();
        assert_eq!(chip.write(ADDRESS, &[0]), Err(Nack), "it is asleep");
        assert_eq!(chip.write(0, &[1]), Err(Nack));
        thread::sleep(WAKE_DELAY);
        let mut word = [0; 4];
        chip.read(ADDRESS, &mut word).expect("awake");
        assert_eq!(word, [0x04, 0x11, 0x33, 0x43]);
        // An Info, and its answer, as they are seen on a bus.
        assert_eq!(packet(0x30, 0, 0, &[]), [3, 7, 0x30, 0, 0, 0, 0x03, 0x5d]);
        let info = ask(&mut chip, 0x30, 0, 0, &[]).expect("an answer");
        assert_eq!(info, [0x00, 0x00, 0x60, 0x02]);
        assert_eq!(ask(&mut chip, 0x02, 0, 0x15, &[]), Some(vec![0; 4]));
        assert_eq!(
            ask(&mut chip, 0x02, 0x80, 0, &[]).map(|block| block.len()),
            Some(32)
        );
        assert_eq!(ask(&mut chip, 0x99, 0, 0, &[]), Some(vec![PARSE_ERROR]));
        assert_eq!(chip.counts.commands, 4);
    }

    #[test]
    fn signs_what_a_nonce_left_and_forgets_it_with_sleep() {
        let mut chip = chip();
        wake(&mut chip);
        let public = ask(&mut chip, 0x40, 0, 0, &[]).expect("a public key");
        let point = [&[0x04], public.as_slice()].concat();
        let key = VerifyingKey::from_sec1_bytes(&point).expect("a point");
        assert_eq!(ask(&mut chip, 0x16, 0x43, 0, &[5; 32]), Some(vec![0]));
        let signed = ask(&mut chip, 0x41, 0xa0, 0, &[]).expect("a signature");
        let signature = Signature::from_slice(&signed).expect("64 bytes");
        key.verify_prehash(&[5; 32], &signature).expect("valid");

        assert_eq!(ask(&mut chip, 0x16, 0x43, 0, &[5; 32]), Some(vec![0]));
        chip.write(ADDRESS, &[0x02]).expect("idle");
        wake(&mut chip);
        assert!(ask(&mut chip, 0x41, 0xa0, 0, &[]).is_some_and(|s| s.len() == 64));
        assert_eq!(ask(&mut chip, 0x16, 0x43, 0, &[5; 32]), Some(vec![0]));
        chip.write(ADDRESS, &[0x01]).expect("asleep");
        wake(&mut chip);
        assert_eq!(
            ask(&mut chip, 0x41, 0xa0, 0, &[]),
            Some(vec![EXECUTION_ERROR])
        );
    }

    #[test]
    fn has_each_fault_on_order() {
        let mut chip = chip();
        wake(&mut chip);
        chip.faults.nack_every = Some(2);
        assert!(ask(&mut chip, 0x30, 0, 0, &[]).is_some());
        assert!(ask(&mut chip, 0x30, 0, 0, &[]).is_none());
        chip.faults.nack_every = None;
        chip.faults.garble_every = Some(1);
        assert!(ask(&mut chip, 0x30, 0, 0, &[]).is_none());
        chip.faults.garble_every = None;
        chip.faults.doze_every = Some(1);
        assert!(ask(&mut chip, 0x30, 0, 0, &[]).is_none());
        chip.faults.doze_every = None;
        wake(&mut chip);
        chip.faults.busy = true;
        assert!(ask(&mut chip, 0x30, 0, 0, &[]).is_none());
        chip.faults.busy = false;
        chip.faults.absent = true;
        assert_eq!(chip.write(ADDRESS, &[0]), Err(Nack));
        chip.faults.absent = false;
        assert_eq!(chip.counts.faults, 3);
        // The watchdog.
        thread::sleep(WATCHDOG);
        assert_eq!(chip.write(ADDRESS, &[0]), Err(Nack));
        wake(&mut chip);
    }
}
