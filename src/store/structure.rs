//! The structure of a database file: the owner of each page, and whether the pages fit together.
//!
//! Owns the walk through b-trees, records and free pages. Needs none of the application's collations,
//! functions or modules. Never trusts a number in the file, never visits a page twice, and never
//! writes.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::path::Path;

use super::format::{
    Cell, HEADER, PageFile, cell_at, columns, half, lock_page, number, page_at, varint,
};

/// How many faults are reported per file.
const MOST_FAULTS: usize = 20;

/// The depth to which SQLite follows a tree.
const DEEPEST: u32 = 20;

/// Longer than any record's header, and than any definition.
const LONGEST_RECORD_HEADER: u64 = 1024 * 1024;
const LONGEST_DEFINITION: u64 = 8 * 1024 * 1024;

/// The owners of pages; from [`FIRST_OBJECT`] on: an object's index in the list.
const NOBODY: u32 = 0;
const SCHEMA: u32 = 1;
const FREE: u32 = 2;
const POINTER_MAP: u32 = 3;
const LOCK_PAGE: u32 = 4;
const FIRST_OBJECT: u32 = 5;

/// A row of the schema.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Object {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) table: String,
    pub(crate) root: u32,
    /// A checksum of its SQL.
    pub(crate) definition: u64,
}

impl Object {
    pub(crate) fn new(kind: &str, name: &str, table: &str, root: u32, sql: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        sql.hash(&mut hasher);
        Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            table: table.to_owned(),
            root,
            definition: hasher.finish(),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |c: &char| !c.is_control();
        let kind: String = self.kind.chars().filter(shown).take(20).collect();
        let name: String = self.name.chars().filter(shown).take(100).collect();
        write!(f, "{kind} {name}")
    }
}

/// Tables with rows of their own, except Litestream's.
pub(crate) fn named_tables(objects: &[Object]) -> impl Iterator<Item = &str> {
    let tables = objects.iter().filter(|o| o.kind == "table" && o.root != 0);
    let names = tables.map(|table| &*table.name);
    names.filter(|name| !name.starts_with("_litestream_"))
}

/// Objects that are missing, new or different, in words, and their tables.
pub(crate) fn changes(live: &[Object], replica: &[Object]) -> (Vec<String>, Vec<String>) {
    let by_name = |objects: &[Object]| -> BTreeMap<(String, String), Object> {
        let keyed = objects.iter().map(|o| (o.kind.clone(), o.name.clone()));
        keyed.zip(objects.iter().cloned()).collect()
    };
    let (live, replica) = (by_name(live), by_name(replica));
    let (mut named, mut tables) = (Vec::new(), Vec::new());
    for (key, object) in &live {
        let what = match replica.get(key) {
            None => "is missing",
            Some(other) if other.definition != object.definition || other.table != object.table => {
                "is made otherwise"
            }
            Some(_) => continue,
        };
        named.push(format!("{object} {what}"));
        tables.push(object.table.clone());
    }
    for (key, object) in &replica {
        if !live.contains_key(key) {
            named.push(format!("{object} is too many"));
            tables.push(object.table.clone());
        }
    }
    (named, tables)
}

/// What the walk found in a file.
#[derive(Debug)]
pub(crate) struct Structure {
    pub(crate) objects: Vec<Object>,
    /// The number of rows or entries in each object's tree.
    entries: Vec<u64>,
    owners: Vec<u32>,
    /// The faults, each with its page and owner.
    pub(crate) faults: Vec<String>,
}

impl Structure {
    /// Walks the whole file. Its faults are in `faults`.
    ///
    /// # Errors
    /// Why the file can't be opened, in words.
    pub(crate) fn of(database: &Path) -> Result<Self, String> {
        let pages = PageFile::open(database)?;
        Ok(Walker::new(pages).walk())
    }

    /// The owner of a page, in words.
    pub(crate) fn owner(&self, page: u32) -> String {
        let index = usize::try_from(page).unwrap_or(usize::MAX);
        let owner = self.owners.get(index).copied().unwrap_or(NOBODY);
        name_of(owner, &self.objects)
    }

    /// The number of rows in a table, or of entries in an index.
    pub(crate) fn entries(&self, kind: &str, name: &str) -> Option<u64> {
        let mut all = self.objects.iter().zip(&self.entries);
        let found = all.find(|(o, _)| o.kind == kind && o.name == name && o.root != 0);
        found.map(|(_, entries)| *entries)
    }
}

fn name_of(owner: u32, objects: &[Object]) -> String {
    match owner {
        NOBODY => "no table or index".to_owned(),
        SCHEMA => "the schema".to_owned(),
        FREE => "free pages".to_owned(),
        POINTER_MAP => "the pointer map".to_owned(),
        LOCK_PAGE => "the lock page".to_owned(),
        _ => usize::try_from(owner - FIRST_OBJECT)
            .ok()
            .and_then(|index| objects.get(index))
            .map_or_else(String::new, Object::to_string),
    }
}

/// A tree during the walk.
struct Tree {
    owner: u32,
    /// It is a tree of rowids, not of keys.
    of_rows: bool,
    last: Option<i64>,
    leaf_depth: Option<u32>,
    entries: u64,
}

struct Walker {
    file: PageFile,
    usable: usize,
    has_pointer_map: bool,
    encoding: u64,
    owners: Vec<u32>,
    objects: Vec<Object>,
    faults: Vec<String>,
    /// The last page of the pointer map that was read.
    map: (u32, Vec<u8>),
}

impl Walker {
    fn new(file: PageFile) -> Self {
        let pages = if file.no_database { 0 } else { file.pages };
        Self {
            usable: file.page_size,
            file,
            has_pointer_map: false,
            encoding: 1,
            owners: vec![NOBODY; pages as usize + 1],
            objects: Vec::new(),
            faults: Vec::new(),
            map: (0, Vec::new()),
        }
    }

    fn walk(mut self) -> Structure {
        let mut entries = Vec::new();
        match self.header() {
            Ok((free, free_count)) => {
                let mut schema = Tree::new(SCHEMA, true);
                self.child(1, 0, 1, &mut schema, 0);
                if let Err(fault) = self.free_list(free, free_count) {
                    self.fault(FREE, 0, &fault);
                }
                for index in 0..self.objects.len() {
                    entries.push(self.object(index));
                }
                self.reserve();
            }
            Err(fault) => self.faults.push(fault),
        }
        Structure {
            objects: self.objects,
            entries,
            owners: self.owners,
            faults: self.faults,
        }
    }

    /// Checks the header, and returns the free list's first page and its length.
    fn header(&mut self) -> Result<(u32, u32), String> {
        if self.file.no_database || self.file.pages == 0 {
            return Err("the file's header is not a database's".to_owned());
        }
        let first = self.file.page(1)?;
        self.usable = self.file.page_size - usize::from(first[20]);
        if self.usable < 480 {
            return Err("the header reserves more of each page than SQLite allows".to_owned());
        }
        let (format, encoding) = (number(&first, 44, 4), number(&first, 56, 4));
        let is_known = first[18] <= 2 && first[19] <= 2 && format <= 4 && encoding <= 3;
        if first[21..24] != [64, 32, 32] || !is_known {
            return Err("the header has a format that SQLite does not know".to_owned());
        }
        self.encoding = encoding;
        self.has_pointer_map = number(&first, 52, 4) != 0;
        // SQLite trusts the size only if the last writer knew the field.
        let said = page_at(&first, 28);
        let pages = match first[24..28] == first[92..96] && said != 0 {
            true => said,
            false => self.file.pages,
        };
        if pages > self.file.pages {
            return Err(format!(
                "the file ends with page {} of {pages}",
                self.file.pages
            ));
        }
        self.owners.truncate(pages as usize + 1);
        Ok((page_at(&first, 32), page_at(&first, 36)))
    }

    fn fault(&mut self, owner: u32, page: u32, what: &str) {
        if self.faults.len() < MOST_FAULTS {
            let owner = name_of(owner, &self.objects);
            self.faults.push(match page {
                0 => format!("{owner}: {what}"),
                page => format!("page {page} of {owner}: {what}"),
            });
        }
    }

    /// The last page that belongs to the database.
    fn last_page(&self) -> u32 {
        u32::try_from(self.owners.len() - 1).unwrap_or(u32::MAX)
    }

    fn is_pointer_map(&self, page: u32) -> bool {
        self.has_pointer_map && page > 1 && self.map_of(page) == page
    }

    /// The page of the pointer map that has the entry of `page`.
    fn map_of(&self, page: u32) -> u32 {
        let each = self.usable as u32 / 5 + 1;
        let map = (page - 2) / each * each + 2;
        match map == lock_page(self.file.page_size) {
            true => map + 1,
            false => map,
        }
    }

    fn take(&mut self, page: u32, owner: u32) -> Result<(), String> {
        if page == 0 || page > self.last_page() {
            return Err(format!("it leads to page {page}, which does not exist"));
        }
        if page == lock_page(self.file.page_size) || self.is_pointer_map(page) {
            return Err(format!("it leads to page {page}, which is not for data"));
        }
        let taken = self.owners[page as usize];
        if taken != NOBODY {
            let other = name_of(taken, &self.objects);
            return Err(format!(
                "it leads to page {page}, which belongs to {other} already"
            ));
        }
        self.owners[page as usize] = owner;
        Ok(())
    }

    /// Checks the pointer map's entry for `page`: its kind, and its parent.
    fn mapped(&mut self, page: u32, kind: u8, parent: u32) -> Result<(), String> {
        if !self.has_pointer_map || page < 2 {
            return Ok(());
        }
        let map = self.map_of(page);
        if self.map.0 != map {
            self.map = (map, self.file.page(map)?);
        }
        let at = (page.saturating_sub(map).saturating_sub(1) as usize).saturating_mul(5);
        let entry = self.map.1.get(at..at + 5).filter(|_| page > map);
        let entry = entry.ok_or("the pointer map has no place for it")?;
        if entry[0] != kind || page_at(entry, 1) != parent {
            return Err(format!("the pointer map is wrong about page {page}"));
        }
        Ok(())
    }

    fn object(&mut self, index: usize) -> u64 {
        let (root, of_table) = (
            self.objects[index].root,
            self.objects[index].kind == "table",
        );
        // A view, a trigger, a virtual table.
        if root == 0 {
            return 0;
        }
        let owner = FIRST_OBJECT.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
        // A table WITHOUT ROWID is also a tree of keys.
        let kind = match root <= self.last_page() {
            true => self.file.page(root).map_or(0, |page| page[0]),
            false => 0,
        };
        let mut tree = Tree::new(owner, of_table && matches!(kind, 5 | 13));
        self.child(root, 0, 1, &mut tree, 0);
        tree.entries
    }

    /// Walks a page's subtree; records a fault there, and continues with the rest.
    fn child(&mut self, page: u32, parent: u32, kind: u8, tree: &mut Tree, depth: u32) {
        let walked = self
            .take(page, tree.owner)
            .map_err(|fault| (parent, fault))
            .and_then(|()| {
                self.mapped(page, kind, parent)
                    .and_then(|()| self.page(page, tree, depth))
                    .map_err(|fault| (page, fault))
            });
        if let Err((at, fault)) = walked {
            self.fault(tree.owner, at, &fault);
        }
    }

    fn page(&mut self, page: u32, tree: &mut Tree, depth: u32) -> Result<(), String> {
        let bytes = self.file.page(page)?;
        let at = if page == 1 { HEADER } else { 0 };
        let (is_leaf, of_rows) = match bytes[at] {
            2 => (false, false),
            5 => (false, true),
            10 => (true, false),
            13 => (true, true),
            _ => return Err("it is not a b-tree page".to_owned()),
        };
        if of_rows != tree.of_rows {
            return Err("it is a page of another kind of b-tree".to_owned());
        }
        if depth > DEEPEST || is_leaf && *tree.leaf_depth.get_or_insert(depth) != depth {
            return Err("it is at another depth than the other leaves".to_owned());
        }
        let cells = self.cells(&bytes, at, is_leaf, of_rows)?;
        for cell in cells {
            if !is_leaf {
                self.child(cell.left, page, 5, tree, depth + 1);
            }
            if of_rows {
                let follows = match is_leaf {
                    true => tree.last.is_none_or(|last| last < cell.key),
                    false => tree.last.is_none_or(|last| last <= cell.key),
                };
                if !follows {
                    let fault = format!("row {} is not in order", cell.key);
                    self.fault(tree.owner, page, &fault);
                }
                tree.last = Some(cell.key);
            }
            if is_leaf || !of_rows {
                tree.entries += 1;
                if let Err(fault) = self.content(&bytes, &cell, page, tree) {
                    self.fault(tree.owner, page, &fault);
                }
            }
        }
        if !is_leaf {
            self.child(page_at(&bytes, at + 8), page, 5, tree, depth + 1);
        }
        Ok(())
    }

    /// The cells of a page; none may overlap another or the free space.
    fn cells(
        &self,
        bytes: &[u8],
        at: usize,
        is_leaf: bool,
        of_rows: bool,
    ) -> Result<Vec<Cell>, String> {
        let count = half(bytes, at + 3);
        let content = match half(bytes, at + 5) {
            0 => 65_536,
            content => content,
        };
        let first = at + if is_leaf { 8 } else { 12 };
        if first + 2 * count > content || content > self.usable {
            return Err("its cells begin outside of their area".to_owned());
        }
        // Offset and size are both less than 2^16: packed in one number they sort fastest.
        let mut covered: Vec<u32> = Vec::with_capacity(count);
        let mut cover = |start: usize, size: usize| {
            covered.push((start as u32) << 16 | size.clamp(4, 0xffff) as u32);
        };
        let mut free = half(bytes, at + 1);
        let mut before = content;
        while free != 0 {
            if free < before || free + 4 > self.usable {
                return Err("its free space is not in order".to_owned());
            }
            let size = half(bytes, free + 2).max(4);
            cover(free, size);
            before = free + size;
            free = half(bytes, free);
        }
        let mut cells = Vec::with_capacity(count);
        for index in 0..count {
            let start = half(bytes, first + 2 * index);
            let cell = match start >= content {
                true => cell_at(&bytes[..self.usable], start, is_leaf, of_rows),
                false => None,
            };
            let cell = cell.ok_or_else(|| format!("its cell {index} is outside of it"))?;
            cover(start, cell.size);
            cells.push(cell);
        }
        covered.sort_unstable();
        let (mut end, mut gaps) = (content, 0);
        for place in covered {
            let (start, size) = ((place >> 16) as usize, (place & 0xffff) as usize);
            if start < end {
                return Err(format!("byte {start} of it is used twice"));
            }
            gaps += start - end;
            end = start + size;
        }
        if end > self.usable || gaps + (self.usable - end) != usize::from(bytes[at + 7]) {
            return Err("its free bytes do not add up".to_owned());
        }
        Ok(cells)
    }

    /// Checks a cell's record and its overflow pages.
    fn content(&mut self, bytes: &[u8], cell: &Cell, page: u32, tree: &Tree) -> Result<(), String> {
        let chain = self.overflow(cell, page, tree.owner)?;
        let local = &bytes[cell.local.clone()];
        let (length, _) = varint(local, 0).ok_or("a record has no header")?;
        if length == 0 || length > cell.payload || length > LONGEST_RECORD_HEADER {
            return Err("a record's header has an impossible length".to_owned());
        }
        let wanted = match tree.owner {
            SCHEMA => cell.payload.min(LONGEST_DEFINITION),
            _ => length,
        };
        let gathered;
        let record = match wanted as usize <= local.len() {
            true => local,
            false => {
                gathered = self.gather(local, &chain, wanted)?;
                &gathered
            }
        };
        let mut found = Vec::new();
        let kept = (tree.owner == SCHEMA).then_some(&mut found);
        columns(record, length, cell.payload, kept).ok_or("a record is damaged")?;
        if tree.owner == SCHEMA {
            let object = self.definition(record, &found);
            let object = object.ok_or("a row of the schema can't be read")?;
            self.objects.push(object);
        }
        Ok(())
    }

    /// Takes the overflow pages of a record.
    fn overflow(&mut self, cell: &Cell, page: u32, owner: u32) -> Result<Vec<u32>, String> {
        let beyond = cell.payload - cell.local.len() as u64;
        let count = beyond.div_ceil(self.usable as u64 - 4);
        if count > u64::from(self.last_page()) {
            return Err("a record is longer than the file".to_owned());
        }
        // Only the head of a long record is read again.
        let mut chain = Vec::new();
        let (mut next, mut parent) = (cell.overflow, page);
        for index in 0..count {
            self.take(next, owner)?;
            self.mapped(next, if index == 0 { 3 } else { 4 }, parent)?;
            if index * self.usable as u64 <= LONGEST_DEFINITION {
                chain.push(next);
            }
            let mut bytes = [0; 4];
            let read = self.file.read(next, &mut bytes);
            read.map_err(|fault| format!("page {next}: {fault}"))?;
            parent = next;
            next = u32::from_be_bytes(bytes);
        }
        if count > 0 && next != 0 {
            return Err(format!("a record goes on after its end, on page {next}"));
        }
        Ok(chain)
    }

    fn gather(&self, local: &[u8], chain: &[u32], wanted: u64) -> Result<Vec<u8>, String> {
        let mut bytes = local.to_vec();
        for page in chain {
            if bytes.len() as u64 >= wanted {
                break;
            }
            bytes.extend_from_slice(&self.file.page(*page)?[4..self.usable]);
        }
        Ok(bytes)
    }

    fn definition(&self, record: &[u8], columns: &[(u64, Range<usize>)]) -> Option<Object> {
        let [kind, name, table, root, sql] = columns else {
            return None;
        };
        let text = |(serial, range): &(u64, Range<usize>)| -> Option<String> {
            if *serial == 0 {
                return Some(String::new());
            }
            let bytes = record.get(range.clone())?;
            let units = |from: fn([u8; 2]) -> u16| -> String {
                let pairs = bytes.chunks_exact(2).map(|pair| from([pair[0], pair[1]]));
                let decoded = char::decode_utf16(pairs);
                decoded.map(|c| c.unwrap_or('\u{fffd}')).collect()
            };
            Some(match self.encoding {
                2 => units(u16::from_le_bytes),
                3 => units(u16::from_be_bytes),
                _ => String::from_utf8_lossy(bytes).into_owned(),
            })
        };
        let root = match root {
            // 0 and 1 are stored in no byte; the root of a view may be NULL.
            (0 | 8, _) => 0,
            (9, _) => 1,
            (1..=6, range) => {
                let bytes = record.get(range.clone())?;
                let root = number(bytes, 0, bytes.len());
                u32::try_from(root).unwrap_or(u32::MAX)
            }
            _ => return None,
        };
        Some(Object::new(
            &text(kind)?,
            &text(name)?,
            &text(table)?,
            root,
            &text(sql)?,
        ))
    }

    fn free_list(&mut self, mut trunk: u32, said: u32) -> Result<(), String> {
        let mut found = 0_u32;
        while trunk != 0 {
            self.take(trunk, FREE)?;
            self.mapped(trunk, 2, 0)?;
            let bytes = self.file.page(trunk)?;
            let count = number(&bytes, 4, 4) as usize;
            if count > self.usable / 4 - 2 {
                return Err(format!("page {trunk} names more pages than it can"));
            }
            for index in 0..count {
                let leaf = page_at(&bytes, 8 + 4 * index);
                self.take(leaf, FREE)?;
                self.mapped(leaf, 2, 0)?;
            }
            found = found.saturating_add(1 + count as u32);
            trunk = page_at(&bytes, 0);
        }
        match found == said {
            true => Ok(()),
            false => Err(format!("there are {found}, and the header counts {said}")),
        }
    }

    /// Marks the lock page and the pointer map; all other pages must have an owner.
    fn reserve(&mut self) {
        let mut lost = (0_u32, 0_u32);
        for page in 1..=self.last_page() {
            let owner = if page == lock_page(self.file.page_size) {
                LOCK_PAGE
            } else if self.is_pointer_map(page) {
                POINTER_MAP
            } else {
                if self.owners[page as usize] == NOBODY {
                    lost = (if lost.1 == 0 { page } else { lost.0 }, lost.1 + 1);
                }
                continue;
            };
            self.owners[page as usize] = owner;
        }
        if lost.1 > 0 {
            let (page, count) = lost;
            self.fault(
                NOBODY,
                page,
                &format!("nothing leads to it, nor to {} more", count - 1),
            );
        }
    }
}

impl Tree {
    fn new(owner: u32, of_rows: bool) -> Self {
        Self {
            owner,
            of_rows,
            last: None,
            leaf_depth: None,
            entries: 0,
        }
    }
}

#[cfg(test)]
mod tests;
