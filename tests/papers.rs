//! `docs/promises.md` held against the tree: each promise has a test, and each test that it names is there.
//!
//! Owns the page's form: the ids in order, the names as `cargo test` prints them. Never judges whether a
//! test shows what is promised.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use edgerepl_lab::tools;
use syn::visit::{self, Visit};
use syn::{ItemFn, ItemMod};

type Outcome = Result<(), Box<dyn Error>>;

#[test]
fn each_promise_has_an_id_of_its_own_and_each_figure_a_promise() -> Outcome {
    let (promises, figures) = page()?;
    assert!(promises.len() > 100, "the page was misread: {promises:?}");
    let ids: Vec<(String, u32)> = promises.iter().map(|row| numbered(&row[0])).collect();
    let in_order = |pair: &[(String, u32)]| pair[0].0 != pair[1].0 || pair[0].1 < pair[1].1;
    let stray: Vec<_> = ids.windows(2).filter(|pair| !in_order(pair)).collect();
    assert!(stray.is_empty(), "out of order: {stray:?}");
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "an id is given twice");
    let lone: Vec<_> = figures
        .iter()
        .filter(|row| !ids.contains(&numbered(&row[0])))
        .collect();
    assert!(lone.is_empty(), "figures of no promise: {lone:?}");
    Ok(())
}

#[test]
fn each_test_that_a_promise_names_is_there() -> Outcome {
    let tests = Tests::of_the_tree()?;
    let (promises, _) = page()?;
    let missing: Vec<String> = promises
        .iter()
        .flat_map(|row| {
            let names = code(&row[3]).filter(|name| !tests.include(name));
            names.map(|name| format!("{}: {name}", row[0]))
        })
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    let bare: Vec<_> = promises
        .iter()
        .filter(|row| code(&row[3]).next().is_none() && row[3] != "not tested")
        .collect();
    assert!(bare.is_empty(), "shown by nothing: {bare:#?}");
    Ok(())
}

/// The cells of one row.
type Row = Vec<String>;

/// The rows of the promises, and those of the figures, by their cells.
fn page() -> Result<(Vec<Row>, Vec<Row>), Box<dyn Error>> {
    let text = fs::read_to_string(tools::root().join("docs/promises.md"))?;
    let (promises, figures) = text.split_once("\n## Figures").ok_or("no figures")?;
    let rows = |text: &str, cells: usize| -> Vec<Row> {
        text.lines()
            .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
            .map(|line| line.split(" | ").map(str::to_owned).collect())
            .filter(|row: &Row| row.len() == cells && row[0] != "id")
            .collect()
    };
    Ok((rows(promises, 4), rows(figures, 2)))
}

/// `P21` as what it is sorted by.
fn numbered(id: &str) -> (String, u32) {
    let (section, number) = id.split_at(1);
    (section.to_owned(), number.parse().unwrap_or(0))
}

/// What stands between backquotes.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// All that the page may name.
struct Tests {
    /// As `cargo test` prints them, with the suite's name before those of an integration test.
    names: BTreeSet<String>,
    /// What `cargo xtask test` and `cargo xtask qemu` know.
    suites: BTreeSet<String>,
}

impl Tests {
    fn of_the_tree() -> Result<Self, Box<dyn Error>> {
        let mut names = BTreeSet::new();
        for folder in ["src", "tests", "lab"] {
            for file in sources(&tools::root().join(folder))? {
                let mut found = Found::new(module_of(&file, folder)?);
                found.visit_file(&syn::parse_file(&fs::read_to_string(&file)?)?);
                names.extend(found.tests);
            }
        }
        let mut suites = BTreeSet::new();
        for file in sources(&tools::root().join("xtask"))? {
            let text = fs::read_to_string(file)?;
            let quoted = text.split('"').skip(1).step_by(2).map(str::to_owned);
            suites.extend(quoted);
        }
        Ok(Self { names, suites })
    }

    fn include(&self, name: &str) -> bool {
        let is_word = |name: &str| self.suites.contains(name);
        if let Some(beginning) = name.strip_suffix('…').or(name.strip_suffix('*')) {
            return self.names.iter().any(|test| test.starts_with(beginning));
        }
        if let Some(story) = name.strip_prefix("qemu::") {
            return is_word(story);
        }
        let is_suite = || is_word(name) || is_word(&name.replace('_', "-"));
        self.names.contains(name)
            || name.starts_with("cargo xtask ")
            || (!name.contains("::") && (is_suite() || self.is_last_name(name)))
    }

    fn is_last_name(&self, name: &str) -> bool {
        let last = |test: &String| test.rsplit("::").next() == Some(name);
        self.names.iter().any(last)
    }
}

/// The tests of one file, by the module that they are in.
struct Found {
    module: Vec<String>,
    tests: Vec<String>,
}

impl Found {
    fn new(module: Vec<String>) -> Self {
        let tests = Vec::new();
        Self { module, tests }
    }
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item_mod(&mut self, inner: &'ast ItemMod) {
        self.module.push(inner.ident.to_string());
        visit::visit_item_mod(self, inner);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        if function.attrs.iter().any(|a| a.path().is_ident("test")) {
            let name = function.sig.ident.to_string();
            self.tests
                .push([&self.module[..], &[name]].concat().join("::"));
        }
    }
}

fn module_of(file: &Path, folder: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let inside = file
        .strip_prefix(tools::root().join(folder))?
        .with_extension("");
    let names = inside
        .iter()
        .map(|name| name.to_string_lossy().into_owned());
    Ok(names.filter(|name| name != "main").collect())
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}
