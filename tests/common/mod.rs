//! What the tests of a running daemon share: a lab, a site, and words for what a status says.

// Each test program compiles this file anew and uses a part of it.
#![allow(dead_code)]

use std::error::Error;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use edgerepl::config::{Identity, Provider};
use edgerepl::credentials::wire::FetchRequest;
use edgerepl_lab::{Device, Lab, LabOptions, Site, tools};
use serde_json::Value;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Far more than anything here takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// A lab whose credentials live so long.
pub(crate) fn lab(lifetime: u64) -> Outcome<Lab> {
    Ok(Lab::start(LabOptions {
        lifetime: Duration::from_secs(lifetime),
        ..LabOptions::default()
    })?)
}

/// The device's site, with the program under test.
pub(crate) fn site(lab: &Lab, device: &Device) -> Outcome<Site> {
    Ok(Site::new(lab, device.clone(), tools::edgerepl()?)?)
}

/// What the daemon would tell a fetch of this device.
pub(crate) fn request(
    lab: &Lab,
    device: &Device,
    refused_pin: PathBuf,
) -> Result<FetchRequest, String> {
    Ok(FetchRequest {
        identity: Identity {
            thing_name: None,
            certificate: device.certificate.clone(),
            private_key: device.private_key.parse()?,
        },
        provider: Provider {
            endpoint: lab.provider().endpoint().parse()?,
            role_alias: lab.provider().role_alias().to_owned(),
            ca_file: lab.ca_file().to_owned(),
        },
        witness: refused_pin.with_file_name("server.pem"),
        refused_pin,
        failures: 0,
    })
}

/// How many grants there were.
pub(crate) fn granted(status: &Value) -> u64 {
    status["credentials"]["granted"]
        .as_u64()
        .unwrap_or_default()
}

/// How many failures of this class there were.
pub(crate) fn failures(status: &Value, class: &str) -> u64 {
    status["credentials"]["failures"][class]
        .as_u64()
        .unwrap_or_default()
}

/// Whether Litestream's replica follows.
pub(crate) fn replicates(status: &Value) -> bool {
    status["replication"]["activity"] == "replicating"
}

/// Lets Litestream replicate these databases beside the first one, and edgerepl know of them.
pub(crate) fn with_databases(site: &Site, others: &[&str]) -> Outcome {
    site.replicate_too(others.iter().copied())?;
    let paths = ["app.db"].iter().chain(others);
    let tables = paths.map(|name| format!("[[database]]\npath = {:?}\n", site.root().join(name)));
    Ok(site.add_layer("databases.toml", &tables.collect::<String>())?)
}

/// Lets Litestream replicate the databases in a folder of this name, which is made.
pub(crate) fn with_folder(site: &Site, name: &str) -> Outcome {
    let config = site.root().join("litestream.yml");
    let text = fs::read_to_string(&config)?;
    let at = text.find("  - path:").ok_or("no entry")?;
    let entry: String = text[at..].split_inclusive('\n').take(7).collect();
    let folder = site.root().join(name);
    let path = format!("path: {}", site.database().display());
    let directory = format!(
        "dir: {}\n    pattern: '*.db'\n    watch: true",
        folder.display()
    );
    let entry = entry.replace(&path, &directory);
    fs::create_dir(folder)?;
    fs::write(
        &config,
        text + &entry.replace("/app.db", &format!("/{name}")),
    )?;
    Ok(())
}

/// Gives the site a Litestream whose `litestream restore` of `database` goes through `script`, a
/// shell's, in which `$o` is the copy, and `litestream "$@"` restores it.
pub(crate) fn restores_of(site: &mut Site, database: &str, script: &str) -> Outcome {
    let real = tools::litestream("0.5.17")?;
    let file = site.root().join("wrapper");
    let text = format!(
        "#!/bin/sh\nlitestream() {{ {real:?} \"$@\"; }}\nfor last; do case $last in */replica-*) \
         o=$last;; esac; done\ncase \"$1 $last\" in\n'restore '*/{database}) {script};;\n*) exec \
         {real:?} \"$@\";;\nesac\n"
    );
    fs::write(&file, text)?;
    fs::set_permissions(&file, Permissions::from_mode(0o755))?;
    let config = site.root().join("litestream.yml");
    let command = format!("[{file:?}, \"replicate\", \"-config\", {config:?}]");
    site.set("replication", "command", command);
    Ok(())
}

/// Gives the site a Litestream that damages what it restores.
pub(crate) fn damage_restores(site: &mut Site) -> Outcome {
    let real = tools::litestream("0.5.17")?;
    let script = site.root().join("damaging");
    let text = format!(
        "#!/bin/sh\n{real:?} \"$@\" || exit\nfor o; do case $o in */replica-*) \
         head -c 6000 /dev/urandom | dd of=$o bs=1 seek=8192 conv=notrunc 2>/dev/null;; esac; done\n"
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    let config = site.root().join("litestream.yml");
    let command = format!("[{script:?}, \"replicate\", \"-config\", {config:?}]");
    site.set("replication", "command", command);
    Ok(())
}
