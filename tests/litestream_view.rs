//! What edgerepl reads in Litestream's configuration is what the real Litestream reads in it: many files,
//! each compared with what Litestream makes of it.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use edgerepl::litestream::config_file::{Configuration, Variables};
use edgerepl_lab::tools;
use serde_json::Value;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What Litestream and edgerepl have in their environment.
const VARIABLES: [(&str, &str); 4] = [
    ("X", "x"),
    ("NAME", "{ path: /named, replica: { url: file:///r } }"),
    ("DOLLAR", "${X}"),
    ("EMPTY", ""),
];

/// Files that Litestream takes. A replica that is a folder needs no network.
const TAKEN: [&str; 78] = [
    "dbs: []",
    "",
    "# nothing but a comment: ${X}",
    "dbs: [{path: /a, replica: {url: file:///r}}]",
    "dbs:\n- path: /a\n  replica:\n    type: file\n    path: /r",
    "dbs:\n- path: /a\n  replicas:\n  - path: /r",
    "dbs:\n- path: /own\n  <<: {path: /merged}\n  replica: {url: file:///r}",
    "dbs:\n- <<: {path: /merged}\n  path: /own\n  replica: {url: file:///r}",
    "d: &d {path: /d}\ne: &e {path: /e}\ndbs:\n- <<: [*d, *e]\n  replica: {url: file:///r}",
    "d: &d {path: /d}\ne: &e {<<: *d}\ndbs:\n- <<: *e\n  replica: {url: file:///r}",
    "<<: {dbs: [{path: /a, replica: {url: file:///r}}]}",
    "\"<<\": {dbs: [{path: /a, replica: {url: file:///r}}]}",
    "dbs: [{path: /a, replica: &r {url: file:///r}}, {path: /b, replica: *r}]",
    "dbs: [{path: /a, replica: &r {url: file:///r}}]\ndbs: [{path: /b, replica: *r}]",
    "dbs: [{path: /a, replica: {url: file:///r}}]\ndbs: ~",
    "dbs:\n- path: /a\n  replica: {url: file:///r}\n  replica: {sync-interval: 1s}\n  path: /b",
    "dbs:\n- path: /a\n  replica: {url: s3://b/r}\n  replica: ~\n  replicas: [{url: file:///r}]",
    "\u{feff}dbs: [{path: /a, replica: {url: file:///r}}]",
    "dbs: [{path: /a, replica: {url: file:///r}}]\n---\ndbs: 3",
    "%YAML 1.1\n---\ndbs: [{path: \"/\\x41\", replica: {url: file:///r}}]\n...\nx: [",
    "dbs: [{path: //a/./b/../c/, replica: {url: file:///r}}]",
    "dbs: [{path: sqlite:///a, replica: {url: file:///r}}]",
    "dbs: [{path: sqlite3:///a, replica: {url: file:///r}}]",
    "dbs: [{path: ~/a, replica: {url: file:///r}}, {path: b, replica: {url: file:///r}}]",
    "dbs: [{path: 007, replica: {url: file:///r}}, {path: 1e3, replica: {url: file:///r}}]",
    "dbs: [{path: yes, replica: {url: file:///r}}]",
    "dbs: [{path: 'it''s', replica: {url: file:///r}}]",
    "dbs:\n- path: >-\n    /a\n    b\n  replica: {url: file:///r}",
    "dbs:\n- path: |\n    /a\n  replica: {url: file:///r}",
    "dbs: [{path: /${X}/$X, replica: {url: file:///r}}, $NAME]",
    "dbs: [{path: \"/a$/${}b\", replica: {url: file:///r}}] # ${c",
    "dbs: [{path: /$1x/$$x/${-}$-y, replica: {url: file:///r}}]",
    "dbs: [{path: /a, replica: {url: file:///r}}] # ${X\n",
    "dbs: [{path: /a$EMPTY$NONE, replica: {url: file:///r, region: ${NONE}}}]",
    "dbs: [{path: \"/$DOLLAR\", replica: {url: file:///r}}]",
    "Dbs: 3\ndbs : [{'path' : /a, \"replica\": {url: file:///r}}]",
    "dbs:\r\n- path: /a\r\n  replica:\r\n    url: file:///r\r\n",
    "dbs:\n- path: /a # comment\n  replica: {url: \"file:///r\",}",
    "dbs: [{path: /a,replica: {url: file:///r}}]",
    "dbs: [{\"path\":\"/a\",\"replica\":{\"url\":\"file:///r\"}}]",
    "{\"dbs\":[{\"path\":\"/a\",\"replica\":{\"url\":\"file:///r\"}}]}",
    "p: &p /a\ndbs: [{path: *p, replica: {url: file:///r}}]",
    "p: &p /a\ndbs: [{path: *p , replica: {url: file:///r}}]",
    "dbs:\n- ? path\n  : /a\n  ? replica\n  : {url: file:///r}",
    "dbs:\n- !!merge <<: {path: /m}\n  replica: {url: file:///r}",
    "dbs: [{!foo path: !bar /a, replica: {url: file:///r}}]",
    "dbs:\n-   path: /a\n    replica:\n        url: file:///r\n-\n    path: /b\n    replica:\n        url: file:///r",
    "dbs:\n- path: /a\n   b\n  replica: {url: file:///r}",
    "dbs:\n- path: \"/a\\\n    b\"\n  replica: {url: file:///r}",
    "dbs: [{path: \"/\\u00e9\", replica: {url: file:///r}}]",
    "dbs: [{path: /a#b, replica: {url: file:///r}}]",
    "%TAG ! tag:example.com,2000:\n---\ndbs: [{path: /a, replica: {url: file:///r}}]",
    "---\n---\ndbs: [{path: /a, replica: {url: file:///r}}]",
    "\n\n  \n# x\ndbs: [{path: /a, replica: {url: file:///r}}]\n...\n",
    "dbs: [{path: /a b, replica: {url: file:///r}}]",
    "dbs: [{path: \"/a\\tb\", replica: {url: file:///r}}]",
    "dbs:\n  - {path: /a,\n     replica: {url: file:///r}}",
    "dbs:\n- {path: /a, replica: {url: file:///r}, snapshot: {interval: 1h}}\nlevels:\n- interval: 30s",
    "x: |\n  a: b\n   ${X}\ndbs: [{path: /a, replica: {url: file:///r}}]",
    "x: >+\n\n  a\n\ndbs: [{path: /a, replica: {url: file:///r}}]",
    "dbs: [{path: '/a\n  b', replica: {url: file:///r}}]",
    "dbs: [{path: 0x1F, replica: {url: file:///r}}, {path: 2001-01-01, replica: {url: file:///r}}, {path: .5, replica: {url: file:///r}}]",
    "dbs: !!seq [{path: /a, replica: !!map {url: file:///r}}]",
    "dbs: [{path: !!str 5, replica: {url: file:///r}}]",
    "dbs: [{path: /a, replica: {url: file:///r}}]\ndbs: []",
    "d: &d {path: /x, replica: {url: file:///r}}\ndbs: [{<<: *d}, {<<: *d, path: /y}]",
    "d: &d\n  replica: {url: file:///r}\ndbs:\n- {path: /a, <<: *d}\n- path: /b\n  <<: *d",
    "a: &x {path: /1}\nb: &x {path: /2}\ndbs: [{<<: *x, replica: {url: file:///r}}]",
    "dbs: [{path: /a b, replica: {url: file:///r}}]",
    "dbs: [{path: /a b, replica: {url: file:///r}}]",
    "dbs: [{path: /a:b, replica: {url: file:///r}}]",
    "dbs: [{path: -/a, replica: {url: file:///r}}]",
    "dbs:\n- path: a[b]{c}\n  replica: {url: file:///r}",
    "dbs:\t[]",
    "&a a: *a",
    "a: b\n---\nc: [",
    "a: b\n...\nc: [",
    "a: !<tag:yaml.org,2002:str> ~\n",
];

/// Files that Litestream refuses as no YAML.
const REFUSED: [&str; 18] = [
    "dbs: [",
    "dbs: [{path: ${NONE}: x}]",
    "a: *nowhere",
    "dbs: \"\\q\"",
    "a: b: c",
    "{",
    "dbs: [{path: a[b, replica: {url: file:///r}}]",
    "dbs: [{path: `a, replica: {url: file:///r}}]",
    "dbs: [{path: %a, replica: {url: file:///r}}]",
    "a: 1\n b: 2",
    "a: \"x\" y",
    "a: [1, 2\nb: 3",
    "- a\nb: c",
    "dbs: [{path: /a, replica: {url: file:///r}}]\n}",
    "<<: 3",
    "<<: [3]",
    "<<: ~",
    "<<: [~]",
];

#[test]
fn each_file_is_read_as_litestream_reads_it() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("litestream.yml");
    let mut differences = Vec::new();
    for text in TAKEN {
        fs::write(&file, text)?;
        let (wanted, found) = (databases(&file)?, ours(&file));
        if wanted.is_err() || found != wanted {
            differences.push(format!("{text:?}: {found:?} for {wanted:?}"));
        }
    }
    for text in REFUSED {
        fs::write(&file, text)?;
        let (wanted, found) = (databases(&file)?, ours(&file));
        if wanted.is_ok() || found.is_ok() {
            differences.push(format!("{text:?}: {found:?} for {wanted:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

/// Litestream's own list of databases knows no folders: what it takes is what it begins to replicate.
#[test]
fn the_databases_of_a_folder_are_those_that_litestream_takes() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (data, replica) = (folder.path().join("data"), folder.path().join("replica"));
    let file = folder.path().join("litestream.yml");
    for made in ["sub/deep", ".hidden", "empty"] {
        fs::create_dir_all(data.join(made))?;
    }
    for name in [
        "a.db",
        "b.sqlite",
        ".dot.db",
        "sp ace.db",
        "[x].db",
        "sub/c.db",
        "sub/deep/d%.db",
        ".hidden/e.db",
    ] {
        let database = rusqlite::Connection::open(data.join(name))?;
        database.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (x)")?;
    }
    fs::write(data.join("empty.db"), "")?;
    fs::write(data.join("text.db"), "a text that is longer than a header")?;
    std::os::unix::fs::symlink(data.join("sub"), data.join("link.db"))?;
    let litestream = tools::litestream("0.5.17")?;
    for (pattern, recursive) in [
        ("*.db", false),
        ("*.db", true),
        ("*", true),
        ("[^a]*.db", true),
        ("?.*", false),
        ("\\\\[x\\\\].db", false),
        ("sub/*.db", true),
        ("[", true),
    ] {
        let _ = fs::remove_dir_all(&replica);
        let text = format!(
            "dbs:\n- dir: {data:?}\n  pattern: \"{pattern}\"\n  recursive: {recursive}\n  watch: true\n  \
             replica: {{ url: \"file://{}?x=1\" }}\n",
            replica.display()
        );
        fs::write(&file, text)?;
        let ran = Command::new(&litestream)
            .args(["replicate", "-once", "-config"])
            .arg(&file)
            .env_clear()
            .output()?;
        let configuration = configuration(&file)?;
        let found = configuration.databases();
        let ours: Vec<_> = found
            .databases
            .iter()
            .map(|path| path.strip_prefix(&data))
            .collect::<Result<_, _>>()?;
        let said = String::from_utf8_lossy(&ran.stdout);
        let theirs: Vec<_> = said
            .lines()
            .filter_map(|line| line.split_once("msg=\"initialized db\" path="))
            .map(|(_, path)| Path::new(path.trim_matches('"')).strip_prefix(&data))
            .collect::<Result<_, _>>()?;
        assert_eq!(ours, theirs, "{pattern} {recursive}: {ran:?}");
        assert_eq!(found.unseen.is_empty(), ran.status.success(), "{pattern}");
        // And each one comes back by the configuration that names it alone.
        for database in &found.databases {
            let alone = configuration
                .alone(database)?
                .ok_or("it is not in a folder")?;
            let (own, copy) = (folder.path().join("own.yml"), folder.path().join("copy"));
            fs::write(&own, &alone)?;
            let restored = Command::new(&litestream)
                .args(["restore", "-no-expand-env", "-config"])
                .arg(&own)
                .arg("-o")
                .args([&copy, database])
                .env_clear()
                .output()?;
            assert!(restored.status.success(), "{alone}: {restored:?}");
            fs::remove_file(&copy)?;
        }
    }
    Ok(())
}

/// The paths that the real Litestream names, or what it says.
fn databases(file: &Path) -> Outcome<Result<Vec<String>, String>> {
    let printed = Command::new(tools::litestream("0.5.17")?)
        .args(["databases", "-json", "-config"])
        .arg(file)
        .env_clear()
        .envs(VARIABLES)
        .output()?;
    if !printed.status.success() {
        return Ok(Err(String::from_utf8_lossy(&printed.stderr).into_owned()));
    }
    let listed: Value = serde_json::from_slice(&printed.stdout)?;
    let databases = listed.as_array().into_iter().flatten();
    let paths = databases.filter_map(|database| database["path"].as_str());
    let mut paths: Vec<String> = paths.map(str::to_owned).collect();
    paths.sort_unstable();
    Ok(Ok(paths))
}

/// The paths that edgerepl reads, in the environment that Litestream has.
fn ours(file: &Path) -> Result<Vec<String>, String> {
    let entries = configuration(file)?.named();
    let mut paths: Vec<_> = entries
        .iter()
        .map(|entry| entry.named.to_string())
        .collect();
    paths.sort_unstable();
    Ok(paths)
}

fn configuration(file: &Path) -> Result<Configuration, String> {
    let name = file.to_string_lossy().into_owned();
    let words = ["litestream", "replicate", "-config", &name].map(str::to_owned);
    let known = VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Configuration::of(&words, &Variables::closed(known))
}
