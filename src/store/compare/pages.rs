//! All pages of a database in one snapshot, and the pages of a copy that differ.
//!
//! Owns a checksum for each page: 1 GiB needs a few MiB. Never keeps a page. Reports the differences
//! and their owners; judges nothing.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use crate::store::format::{HEADER, PageFile, lock_page};
use crate::store::structure::{Object, Structure, changes, named_tables};

/// How much of a file is read at once, in bytes; four times the largest page.
const STRETCH: usize = 256 * 1024;

/// How many differences are listed.
const MOST_NAMED: usize = 100;

/// All pages of a database in one snapshot.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pub(super) page_size: usize,
    header: Vec<u8>,
    /// Of the first page without the header, and of all others; with a secret key, so that no page can
    /// be made with the same checksum.
    checksums: Vec<u64>,
    key: RandomState,
    pub(super) objects: Vec<Object>,
}

impl Pages {
    /// Pages come in order.
    pub(super) fn add(&mut self, number: u32, bytes: &[u8]) {
        if number == 1 {
            self.page_size = bytes.len();
            self.header = bytes.get(..HEADER).unwrap_or_default().to_vec();
        }
        self.checksums.push(self.checksum(number, bytes));
    }

    fn checksum(&self, number: u32, bytes: &[u8]) -> u64 {
        let skipped = if number == 1 { HEADER } else { 0 };
        let mut hasher = self.key.build_hasher();
        // The content of the lock page is undefined.
        if number != lock_page(self.page_size) {
            hasher.write(bytes.get(skipped..).unwrap_or_default());
        }
        hasher.finish()
    }

    pub(crate) fn count(&self) -> u64 {
        self.checksums.len() as u64
    }

    /// The names of the tables of these pages.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &str> {
        named_tables(&self.objects)
    }

    /// The pages of a restored file that differ from these.
    ///
    /// # Errors
    /// Why the file can't be read, in words.
    pub(crate) fn differing(&self, copy: &Path) -> Result<Differing, String> {
        let file = PageFile::open(copy)?;
        if file.page_size != self.page_size {
            return Ok(Differing {
                other_size: Some(file.page_size),
                ..Differing::default()
            });
        }
        let mut found = Differing {
            missing: self.count().saturating_sub(u64::from(file.pages)),
            beyond: u64::from(file.pages).saturating_sub(self.count()),
            rest: file.rest,
            ..Differing::default()
        };
        let both = usize::try_from(self.count().min(u64::from(file.pages))).unwrap_or(usize::MAX);
        let each = STRETCH / self.page_size;
        let mut buffer = vec![0; each * self.page_size];
        let mut number = 1;
        for checksums in self.checksums[..both].chunks(each) {
            let stretch = &mut buffer[..checksums.len() * self.page_size];
            file.read(number, stretch)?;
            for (bytes, checksum) in stretch.chunks(self.page_size).zip(checksums) {
                if number == 1 && bytes.get(..HEADER) != Some(&self.header[..]) {
                    found.header = Some(header_difference(&self.header, bytes));
                }
                if self.checksum(number, bytes) != *checksum {
                    found.numbers.push(number);
                }
                number += 1;
            }
        }
        Ok(found)
    }

    /// The owners of the pages that differ, by the file's structure; and what the file lacks, by these
    /// pages' schema.
    pub(crate) fn name(&self, differing: &Differing, structure: &Structure) -> Differences {
        let mut found = Differences {
            pages: self.differing_count(differing),
            ..Differences::default()
        };
        if let Some(size) = differing.other_size {
            let sizes = format!("pages of {size} bytes, not of {}", self.page_size);
            found.named.push(sizes);
            found.tables = self.objects.iter().map(|o| o.table.clone()).collect();
            return found;
        }
        if differing.is_none() {
            return found;
        }
        let mut owners: BTreeMap<String, (u64, u32)> = BTreeMap::new();
        let header = differing.header.iter().map(|said| (said.clone(), 1));
        let numbers = differing.numbers.iter();
        for (owner, page) in header.chain(numbers.map(|page| (structure.owner(*page), *page))) {
            owners.entry(owner).or_insert((0, page)).0 += 1;
        }
        let (changes, tables) = changes(&self.objects, &structure.objects);
        found.tables = tables;
        for object in &structure.objects {
            if owners.contains_key(&object.to_string()) {
                found.tables.push(object.table.clone());
            }
        }
        let pages = owners.iter().map(|(owner, (count, first))| match count {
            1 => format!("{owner}: page {first}"),
            count => format!("{owner}: {count} pages from {first} on"),
        });
        found.named = changes.into_iter().chain(pages).take(MOST_NAMED).collect();
        if differing.missing > 0 {
            let text = format!("{} pages are missing at the end", differing.missing);
            found.named.push(text);
        }
        if differing.beyond > 0 || differing.rest > 0 {
            let (pages, bytes) = (differing.beyond, differing.rest);
            found.named.push(format!(
                "{pages} pages and {bytes} bytes too many at the end"
            ));
        }
        found
    }

    fn differing_count(&self, differing: &Differing) -> u64 {
        if differing.other_size.is_some() {
            return self.count();
        }
        let first_twice = differing.header.is_some() && differing.numbers.first() == Some(&1);
        let within = differing.numbers.len() as u64 + u64::from(differing.header.is_some())
            - u64::from(first_twice);
        let all = within + differing.missing + differing.beyond;
        all.max(u64::from(differing.rest > 0))
    }
}

/// The pages of a copy that differ.
#[derive(Debug, Default)]
pub(crate) struct Differing {
    /// The difference in the header's numbers.
    header: Option<String>,
    numbers: Vec<u32>,
    /// The pages missing at its end, the extra pages, and the bytes after the last page.
    missing: u64,
    beyond: u64,
    rest: u64,
    /// The size of its pages, if it differs.
    other_size: Option<usize>,
}

impl Differing {
    /// Whether the copy is the same, byte for byte.
    pub(crate) fn is_none(&self) -> bool {
        self.other_size.is_none()
            && self.header.is_none()
            && self.numbers.is_empty()
            && (self.missing, self.beyond, self.rest) == (0, 0, 0)
    }
}

/// How a copy differs from the original.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    pub(crate) pages: u64,
    /// Each in words.
    pub(crate) named: Vec<String>,
    /// Tables with a difference of their own.
    pub(crate) tables: Vec<String>,
}

/// The header's numbers that differ.
fn header_difference(live: &[u8], replica: &[u8]) -> String {
    let fields = [
        (24, 4, "change counter"),
        (28, 4, "size"),
        (32, 8, "free list"),
        (40, 4, "schema cookie"),
        (52, 4, "largest root"),
        (56, 4, "encoding"),
        (60, 4, "user_version"),
        (64, 4, "incremental vacuum"),
        (68, 4, "application_id"),
    ];
    let differs = |at: usize, size: usize| live.get(at..at + size) != replica.get(at..at + size);
    let names: Vec<&str> = fields
        .iter()
        .filter(|(at, size, _)| differs(*at, *size))
        .map(|(_, _, name)| *name)
        .collect();
    match names.is_empty() {
        true => "the header".to_owned(),
        false => format!("the header ({})", names.join(", ")),
    }
}
