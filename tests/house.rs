//! The house's one rule, held against the source: a room imports only what stands below it, and no two
//! rooms import each other, in whatever roundabout way.
//!
//! A room is a module with all that is inside it; the rule holds between the rooms of each floor. Between a
//! module and what is inside it there is no wall. Tests may look into any room.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use edgerepl_lab::tools;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};

type Outcome = Result<(), Box<dyn Error>>;

/// The rooms of the ground floor, from the top to the bottom.
const ROOMS: [&str; 11] = [
    "cli",
    "commands",
    "reactor",
    "ipc",
    "agent",
    "litestream",
    "credentials",
    "store",
    "config",
    "system",
    "clock",
];

#[test]
fn each_room_imports_only_what_stands_below_it() -> Outcome {
    let house = House::read(&tools::root().join("src"))?;
    let ground: BTreeSet<_> = house.rooms.iter().filter(|r| !r.contains("::")).collect();
    let known: BTreeSet<_> = ROOMS.into_iter().collect();
    let found: BTreeSet<_> = ground.iter().map(|room| room.as_str()).collect();
    assert_eq!(found, known, "each room has its place in the order");

    let rank = |room: &str| ROOMS.iter().position(|known| *known == room);
    let upward: Vec<_> = house
        .imports("")
        .filter(|(from, to)| rank(from) >= rank(to))
        .map(|(from, to)| house.told(from, to))
        .collect();
    assert!(upward.is_empty(), "imports that lead upward: {upward:#?}");
    Ok(())
}

#[test]
fn no_two_rooms_import_each_other() -> Outcome {
    let house = House::read(&tools::root().join("src"))?;
    assert!(house.rooms.len() > 50, "{:?}", house.rooms);
    let floors: BTreeSet<&str> = house.rooms.iter().map(|room| floor_of(room)).collect();
    let circles: Vec<_> = floors
        .into_iter()
        .flat_map(|floor| house.circles(floor))
        .collect();
    assert!(circles.is_empty(), "{circles:#?}");
    Ok(())
}

/// What is inside which room, and who imports whom, each with one example.
#[derive(Default)]
struct House {
    rooms: BTreeSet<String>,
    imports: BTreeMap<(String, String), (String, String)>,
}

impl House {
    fn read(source: &Path) -> Result<Self, Box<dyn Error>> {
        let mut files = Vec::new();
        gather(source, &mut files)?;
        let module_of = |file: &Path| -> Option<String> {
            let path = file.strip_prefix(source).ok()?.with_extension("");
            let names: Option<Vec<_>> = path.iter().map(|name| name.to_str()).collect();
            names.map(|names| names.join("::"))
        };
        let mut house = Self::default();
        let is_room =
            |module: &str| !["lib", "main"].contains(&module) && name_of(module) != "tests";
        let modules: Vec<_> = files
            .iter()
            .filter_map(|file| Some((file, module_of(file).filter(|module| is_room(module))?)))
            .collect();
        house.rooms = modules.iter().map(|(_, module)| module.clone()).collect();
        for (file, module) in &modules {
            let mut paths = Paths::default();
            paths.visit_file(&syn::parse_file(&fs::read_to_string(file)?)?);
            for path in paths.0 {
                house.note(module, &path);
            }
        }
        Ok(house)
    }

    /// Notes where the path that stands in `module` leads, between the two rooms of one floor.
    fn note(&mut self, module: &str, path: &[String]) {
        let Some(target) = self.resolve(module, path) else {
            return;
        };
        let (mut from, mut to) = (module.split("::"), target.split("::"));
        let mut floor = Vec::new();
        loop {
            match (from.next(), to.next()) {
                (Some(a), Some(b)) if a == b => floor.push(a),
                (Some(a), Some(b)) => {
                    let room = |name: &str| [&floor[..], &[name]].concat().join("::");
                    self.imports
                        .entry((room(a), room(b)))
                        .or_insert_with(|| (module.to_owned(), target.clone()));
                    return;
                }
                // One is inside the other.
                _ => return,
            }
        }
    }

    /// The innermost room that a path leads into.
    fn resolve(&self, module: &str, path: &[String]) -> Option<String> {
        let mut place: Vec<&str> = module.split("::").collect();
        let mut names = path.iter().map(String::as_str).peekable();
        match *names.peek()? {
            "crate" => {
                place.clear();
                names.next();
            }
            "self" => {
                names.next();
            }
            "super" => {
                while names.next_if_eq(&"super").is_some() {
                    place.pop();
                }
            }
            // Of another crate, or a name that was imported.
            _ => return None,
        }
        place.extend(names);
        (1..=place.len())
            .rev()
            .map(|length| place[..length].join("::"))
            .find(|room| self.rooms.contains(room))
    }

    fn imports<'a>(&'a self, floor: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.imports.keys();
        pairs
            .filter(move |(from, _)| floor_of(from) == floor)
            .map(|(from, to)| (from.as_str(), to.as_str()))
    }

    fn told(&self, from: &str, to: &str) -> String {
        let (module, target) = &self.imports[&(from.to_owned(), to.to_owned())];
        format!("{from} -> {to} ({module} imports {target})")
    }

    /// Each room of a floor from which a way leads back to it, with its next step on that way.
    fn circles(&self, floor: &str) -> Vec<String> {
        let next = |room: &str| -> Vec<&str> {
            let imports = self.imports(floor);
            imports
                .filter(|(from, _)| *from == room)
                .map(|(_, to)| to)
                .collect()
        };
        let leads_to = |begin: &str, end: &str| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![begin]);
            while let Some(room) = open.pop() {
                if room == end {
                    return true;
                }
                if seen.insert(room) {
                    open.extend(next(room));
                }
            }
            false
        };
        self.imports(floor)
            .filter(|(from, to)| leads_to(to, from))
            .map(|(from, to)| self.told(from, to))
            .collect()
    }
}

fn floor_of(room: &str) -> &str {
    room.rsplit_once("::").map_or("", |(floor, _)| floor)
}

fn name_of(room: &str) -> &str {
    room.rsplit("::").next().unwrap_or(room)
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            gather(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// All paths in a file, tests left out.
#[derive(Default)]
struct Paths(Vec<Vec<String>>);

impl Paths {
    fn add_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Name(name) => self.0.push(with(name.ident.to_string())),
            UseTree::Rename(name) => self.0.push(with(name.ident.to_string())),
            UseTree::Glob(_) => self.0.push(before.to_vec()),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(before, tree);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(ItemMod { attrs, .. }) | Item::Use(ItemUse { attrs, .. }) => &attrs[..],
            Item::Fn(function) => &function.attrs,
            _ => &[],
        };
        if !attributes.iter().any(is_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|s| s.ident.to_string());
        self.0.push(names.collect());
        visit::visit_path(self, path);
    }

    /// A macro's arguments are words to the parser: paths in them are found by their beginning.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let text = called.tokens.to_string().replace(' ', "");
        for begin in ["crate::", "super::"] {
            for (at, _) in text.match_indices(begin) {
                let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
                let path: String = text[at..].chars().take_while(|c| word(*c)).collect();
                self.0.push(path.split("::").map(str::to_owned).collect());
            }
        }
        visit::visit_macro(self, called);
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    let is_cfg = attribute.path().is_ident("cfg");
    is_cfg
        && attribute
            .parse_args::<syn::Path>()
            .is_ok_and(|path| path.is_ident("test"))
}
