//! SQLite's file format: pages, their cells, and numbers (sqlite.org/fileformat.html).
//!
//! Owns the reading of bytes. Checks only whether they can be what they should be: bytes outside of
//! a page are `None`, and never a panic.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The bytes before the first page's b-tree.
pub(super) const HEADER: usize = 100;

/// Where SQLite puts its locks: the page there is never written.
const LOCKS_AT: u64 = 1 << 30;

/// A database's file, page by page; the first one has number 1.
#[derive(Debug)]
pub(super) struct PageFile {
    file: File,
    pub(super) page_size: usize,
    /// Whole pages in the file.
    pub(super) pages: u32,
    /// Bytes after the last whole page.
    pub(super) rest: u64,
    /// Too short for a header, or with one that is none.
    pub(super) no_database: bool,
}

impl PageFile {
    /// # Errors
    /// Where it can't be read, in words.
    pub(super) fn open(database: &Path) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("{} can't be read: {e}", database.display());
        let file = File::open(database).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut header = [0; HEADER];
        let whole = size >= HEADER as u64 && file.read_exact_at(&mut header, 0).is_ok();
        let page_size = match number(&header, 16, 2) {
            1 => 65_536,
            page_size => page_size as usize,
        };
        let no_database = !whole
            || &header[..16] != b"SQLite format 3\0"
            || !page_size.is_power_of_two()
            || page_size < 512;
        let page_size = if no_database { 4096 } else { page_size };
        Ok(Self {
            file,
            page_size,
            pages: u32::try_from(size / page_size as u64).unwrap_or(u32::MAX - 1),
            rest: size % page_size as u64,
            no_database,
        })
    }

    /// Fills `bytes` from the beginning of `page` on.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn read(&self, page: u32, bytes: &mut [u8]) -> Result<(), String> {
        let at = u64::from(page.saturating_sub(1)) * self.page_size as u64;
        let read = self.file.read_exact_at(bytes, at);
        read.map_err(|e| format!("it can't be read: {e}"))
    }

    pub(super) fn page(&self, page: u32) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; self.page_size];
        self.read(page, &mut bytes)?;
        Ok(bytes)
    }
}

/// The number of the page that is never written, where a file reaches that far.
pub(super) fn lock_page(page_size: usize) -> u32 {
    let before = LOCKS_AT / (page_size.max(512) as u64);
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

/// An entry of a page, as the page describes it.
pub(super) struct Cell {
    pub(super) left: u32,
    pub(super) key: i64,
    pub(super) payload: u64,
    pub(super) local: Range<usize>,
    pub(super) overflow: u32,
    pub(super) size: usize,
}

pub(super) fn cell_at(page: &[u8], start: usize, is_leaf: bool, of_rows: bool) -> Option<Cell> {
    let usable = page.len();
    let mut at = start;
    let mut left = 0;
    if !is_leaf {
        left = u32::try_from(number(page.get(at..at + 4)?, 0, 4)).ok()?;
        at += 4;
    }
    if of_rows && !is_leaf {
        let (key, end) = varint(page, at)?;
        return Some(Cell {
            left,
            key: key.cast_signed(),
            payload: 0,
            local: 0..0,
            overflow: 0,
            size: end - start,
        });
    }
    let (payload, mut at) = varint(page, at)?;
    let mut key = 0;
    if of_rows {
        let (rowid, end) = varint(page, at)?;
        (key, at) = (rowid.cast_signed(), end);
    }
    let most = match of_rows {
        true => usable - 35,
        false => (usable - 12) * 64 / 255 - 23,
    };
    let local = match usize::try_from(payload) {
        Ok(payload) if payload <= most => payload,
        _ => {
            let least = (usable - 12) * 32 / 255 - 23;
            let beyond = (payload - least as u64) % (usable as u64 - 4);
            let local = least + usize::try_from(beyond).ok()?;
            if local <= most { local } else { least }
        }
    };
    let end = at + local;
    let mut overflow = 0;
    let mut size = end - start;
    if (local as u64) < payload {
        overflow = u32::try_from(number(page.get(end..end + 4)?, 0, 4)).ok()?;
        size += 4;
    }
    (start + size <= usable).then_some(Cell {
        left,
        key,
        payload,
        local: at..end,
        overflow,
        size,
    })
}

/// Each column's serial type and place into `kept`; nothing where they don't fit into the record.
/// What lies beyond `record` may still be within the payload.
pub(super) fn columns(
    record: &[u8],
    length: u64,
    payload: u64,
    mut kept: Option<&mut Vec<(u64, Range<usize>)>>,
) -> Option<()> {
    let length_of_header = usize::try_from(length).ok()?;
    let header = record.get(..length_of_header)?;
    let (_, mut at) = varint(header, 0)?;
    let mut end = length;
    while at < header.len() {
        let (serial, next) = varint(header, at)?;
        let size = match serial {
            0 | 8 | 9 => 0,
            1..=4 => serial,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => (serial - 12) / 2,
        };
        let start = end;
        end = end.checked_add(size)?;
        if let Some(kept) = &mut kept {
            let place = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
            kept.push((serial, place));
        }
        at = next;
    }
    (at == header.len() && end <= payload).then_some(())
}

/// SQLite's number of one to nine bytes, and where it ends.
pub(super) fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for index in 0..8 {
        let byte = *bytes.get(at + index)?;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value, at + index + 1));
        }
    }
    let last = *bytes.get(at + 8)?;
    Some((value << 8 | u64::from(last), at + 9))
}

/// A number of two bytes; what lies outside reads as 0.
pub(super) fn half(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => usize::from(high) << 8 | usize::from(low),
        _ => 0,
    }
}

/// A big-endian number of `size` bytes; what lies outside reads as 0.
pub(super) fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let found = bytes.get(at..at + size).unwrap_or_default();
    found
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

pub(super) fn page_at(bytes: &[u8], at: usize) -> u32 {
    u32::try_from(number(bytes, at, 4)).unwrap_or(u32::MAX)
}
