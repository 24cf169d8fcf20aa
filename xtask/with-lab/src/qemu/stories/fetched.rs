//! An update that the device fetches itself, as the thing that it is: by mutual TLS, with the key in its token.

use std::fs;
use std::time::Instant;

use xtask::image::slots::Root;

use super::evidence::{ensure, rows, snapshots, took};
use super::{Bench, Failure, Figures, LONG};
use crate::qemu::rig::DEVICE_KEY;
use crate::qemu::slots::B;

/// Where it is kept until it is installed: RAUC checks it again as it reads it.
const PLACE: &str = "/data/update.raucb";

pub(super) fn over_https(bench: &Bench) -> Result<Figures, Failure> {
    let slots = bench.slots()?;
    let rig = bench.rig("https", LONG)?;
    let folder = rig.folder().join("updates");
    fs::create_dir_all(&folder)?;
    let bundle = folder.join("next.raucb");
    slots.write(&slots.update(Root::version(2)), &bundle)?;
    let size = fs::metadata(&bundle)?.len();
    let updates = rig.lab.updates(&folder)?;

    let mut device = rig.first_boot()?;
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    let url = updates.url("next.raucb");
    let fetch = |identity: &str| {
        format!(
            "curl --silent --show-error --fail --cacert /data/edgerepl/ca.pem {identity} \
             --output {PLACE} {url} && sync {PLACE}"
        )
    };
    let (code, said) = device.shell.try_run(&fetch(""))?;
    ensure(code != 0, || format!("it was sent to a stranger: {said}"))?;
    let gnu = bench.image.arch.gnu;
    let own = format!(
        "--engine pkcs11 --key-type ENG --key '{DEVICE_KEY}' --cert /data/edgerepl/device.crt"
    );
    let with_token = format!(
        "export SOFTHSM2_CONF=/data/edgerepl/softhsm2.conf \
         PKCS11_MODULE_PATH=/usr/lib/{gnu}/softhsm/libsofthsm2.so; {}",
        fetch(&own)
    );
    let begun = Instant::now();
    device.shell.run(&with_token)?;
    let fetched = begun.elapsed();
    let sent = updates.sent();
    let wanted = |bytes: u64| bytes == size;
    let ours = sent.iter().find(|sent| wanted(sent.bytes));
    let ours = ours.ok_or_else(|| format!("{sent:?}"))?;
    ensure(ours.thing_name == rig.device.thing_name, || {
        format!("{ours:?}")
    })?;
    let begun = Instant::now();
    let (code, said) = device.install_file(PLACE)?;
    ensure(code == 0, || format!("RAUC ends with {code}: {said}"))?;
    let installed = begun.elapsed();
    device.shell.run(&format!("rm {PLACE}"))?;
    device.reboot_into(B)?;
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    device.shut_down()?;
    Ok(vec![
        ("bytes of the bundle", size.to_string()),
        ("signed with", ours.signature_scheme.clone()),
        ("fetched within", took(fetched)),
        ("installed within", took(installed)),
        rows(&rig)?,
        snapshots(&rig, 1)?,
    ])
}
