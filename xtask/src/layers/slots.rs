//! Firmware with two slots, by either packager: the disk, RAUC, U-Boot and its environment, and the unit that tries a
//! new image.
//!
//! Owns what has to be the same in files that do not know of each other. That such a disk boots is not shown here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Bench, Findings, Verdict, buildroot, yocto};
use xtask::process;

/// With it the layer changes the image, RAUC's configuration and U-Boot.
const CHOSEN: &str = "EDGEREPL_SLOTS=rauc";

/// The unit of `dist/` that tries a new image.
const UNIT: &str = "edgerepl-boot-check.service";

/// The files that one packager makes such a firmware from.
struct Layout {
    /// By the name of each partition where it begins and how large it is, where the file says so.
    disk: BTreeMap<String, (Option<u64>, Option<u64>)>,
    rauc: String,
    script: String,
    loader: String,
    tools: String,
}

/// What RAUC, U-Boot and the disk say of each other is so, and is the same by both packagers.
pub(super) fn agree(bench: &Bench) -> Verdict {
    let layer = yocto::layer(bench).join("dynamic-layers/rauc");
    let board = buildroot::tree(bench).join("board/qemu-aarch64-rauc");
    let read =
        |path: PathBuf| fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()));
    let files = layer.join("recipes-bsp/u-boot/files");
    let of_yocto = Layout {
        disk: wks(&read(layer.join("files/wic/edgerepl-slots.wks.in"))?),
        rauc: read(layer.join("recipes-core/rauc/files/system.conf"))?,
        script: read(files.join("boot.cmd"))?,
        loader: read(files.join("edgerepl-environment.cfg"))?,
        tools: read(files.join("fw_env.config"))?,
    };
    let overlay = board.join("overlay/etc");
    let of_buildroot = Layout {
        disk: genimage(&read(board.join("genimage.cfg"))?),
        rauc: read(overlay.join("rauc/system.conf"))?,
        script: read(board.join("boot.cmd"))?,
        loader: read(board.join("uboot.fragment"))?,
        tools: read(overlay.join("fw_env.config"))?,
    };
    let mut findings = Findings::new();
    for (packager, layout) in [("Yocto", &of_yocto), ("Buildroot", &of_buildroot)] {
        let found = of_layout(layout).into_iter();
        findings.extend(found.map(|finding| format!("{packager}: {finding}")));
    }
    for (what, one, other) in [
        ("boot.cmd", &of_yocto.script, &of_buildroot.script),
        ("fw_env.config", &of_yocto.tools, &of_buildroot.tools),
    ] {
        if one != other {
            findings.push(format!("{what} is not the same by both packagers"));
        }
    }
    let slots = slots(&of_yocto.rauc);
    if slots != self::slots(&of_buildroot.rauc) {
        findings.push("RAUC's slots are not the same by both packagers".to_owned());
    }
    Ok((format!("{} slots, 2 packagers", slots.len()), findings))
}

/// What is wrong with a layout.
fn of_layout(layout: &Layout) -> Findings {
    let mut findings = Findings::new();
    let mut need = |holds: bool, what: String| {
        if !holds {
            findings.push(what);
        }
    };
    let slots = slots(&layout.rauc);
    need(slots.len() == 2, format!("RAUC has the slots {slots:?}"));
    for (name, partition) in &slots {
        need(
            layout.disk.contains_key(partition),
            format!("the disk has no partition {partition} for slot {name}"),
        );
        let pair = format!("setenv chosen {name}\n        setenv partition {partition}\n");
        need(
            layout.script.contains(&pair),
            format!("boot.cmd does not take slot {name} from {partition}"),
        );
    }
    for word in ["rauc.slot=${chosen}", "root=PARTLABEL=${partition}"] {
        need(
            layout.script.contains(word),
            format!("boot.cmd does not give the kernel {word}"),
        );
    }
    need(
        layout.disk.contains_key("data"),
        "the disk has no data partition".to_owned(),
    );

    let (start, size) = match layout.disk.get("env") {
        Some((Some(start), Some(size))) => (*start, *size),
        other => {
            need(
                false,
                format!("where env is on the disk is not told: {other:?}"),
            );
            (0, 0)
        }
    };
    let set = |name: &str| {
        let line = layout.loader.lines();
        let value = line
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .next_back()?;
        bytes(value)
    };
    let wanted: Vec<Option<(u64, u64)>> = ["CONFIG_ENV_OFFSET", "CONFIG_ENV_OFFSET_REDUND"]
        .iter()
        .map(|name| Some((set(name)?, set("CONFIG_ENV_SIZE")?)))
        .collect();
    let copies: Vec<Option<(u64, u64)>> = layout
        .tools
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, offset, length] = words[..] else {
                return None;
            };
            Some((start + bytes(offset)?, bytes(length)?))
        })
        .collect();
    need(
        copies == wanted && copies.len() == 2,
        format!("fw_env.config has the copies {copies:x?}, and U-Boot {wanted:x?}"),
    );
    if let [Some((first, length)), Some((second, _))] = copies[..] {
        need(
            first >= start && second >= first + length && second + length <= start + size,
            "the two copies are not apart, or not within the partition env".to_owned(),
        );
    }
    need(
        layout.loader.contains("CONFIG_ENV_REDUNDANT=y\n"),
        "U-Boot has one copy of its environment".to_owned(),
    );
    findings
}

/// By each slot's name the partition that RAUC's configuration has for it.
fn slots(configuration: &str) -> BTreeMap<String, String> {
    let sections = configuration.split("\n[slot.").skip(1);
    sections
        .filter_map(|section| {
            let value = |key: &str| section.lines().find_map(|line| line.strip_prefix(key));
            let device = value("device=/dev/disk/by-partlabel/")?;
            Some((value("bootname=")?.to_owned(), device.to_owned()))
        })
        .collect()
}

/// The partitions of wic's file.
fn wks(text: &str) -> BTreeMap<String, (Option<u64>, Option<u64>)> {
    let partitions = text.lines().filter(|line| line.starts_with("part "));
    partitions
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |option: &str| {
                let pair = words.windows(2).find(|pair| pair[0] == option);
                pair.map(|pair| pair[1])
            };
            let place = (
                after("--offset").and_then(bytes),
                after("--fixed-size").and_then(bytes),
            );
            Some((after("--part-name")?.to_owned(), place))
        })
        .collect()
}

/// The partitions of genimage's file.
fn genimage(text: &str) -> BTreeMap<String, (Option<u64>, Option<u64>)> {
    let partitions = text.split("\tpartition ").skip(1);
    partitions
        .filter_map(|section| {
            let section = section.split('}').next()?;
            let name = section.split_whitespace().next()?;
            let value = |key: &str| {
                let mut lines = section.lines().map(str::trim);
                bytes(lines.find_map(|line| line.strip_prefix(key))?)
            };
            Some((name.to_owned(), (value("offset = "), value("size = "))))
        })
        .collect()
}

/// A number of bytes, as these files write it.
fn bytes(text: &str) -> Option<u64> {
    match (text.strip_prefix("0x"), text.strip_suffix('M')) {
        (Some(number), _) => u64::from_str_radix(number, 16).ok(),
        (None, Some(number)) => Some(number.parse::<u64>().ok()? << 20),
        (None, None) => text.parse().ok(),
    }
}

/// Nothing of another layer is changed before somebody chooses it, and what is changed then is whole.
pub(super) fn appended(bench: &Bench) -> Verdict {
    let layer = yocto::layer(bench).canonicalize()?;
    let mut findings = Findings::new();
    for (settings, is_chosen) in [(&[][..], false), (&[CHOSEN][..], true)] {
        let document = yocto::parse(bench, "wrynose", "aarch64", settings)?;
        for name in ["rauc-conf", "u-boot"] {
            let is_ours = |source: &Value| {
                let place = source["local"].as_str().unwrap_or_default();
                Path::new(place).starts_with(&layer)
            };
            let recipe = appended_to(&document, name)?;
            let sources = recipe["sources"].as_array();
            let ours = sources.is_some_and(|sources| sources.iter().any(is_ours));
            if ours != is_chosen {
                findings.push(format!(
                    "with {settings:?} {name} is made of this layer: {ours}"
                ));
            }
        }
    }
    let folder = bench.root.join("target/layers/slots");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let files = layer.join("dynamic-layers/rauc/recipes-core/rauc/files");
    let folders = [
        format!("D={}", folder.join("root").display()),
        format!("UNPACKDIR={}", files.display()),
    ];
    let document = yocto::parse(
        bench,
        "wrynose",
        "aarch64",
        &[CHOSEN, &folders[0], &folders[1]],
    )?;
    let recipe = appended_to(&document, "rauc-conf")?;
    let script = folder.join("do_install");
    let text = recipe["do_install"].as_str().unwrap_or_default();
    fs::write(&script, format!("set -e\n{text}\ndo_install\n"))?;
    process::output(Command::new("sh").arg(&script))?;
    let installed = fs::read_to_string(folder.join("root/usr/lib/rauc/system.conf"))?;
    let bundle = yocto::named(&document, "edgerepl-bundle")?;
    let compatible = text_of(bundle, "RAUC_BUNDLE_COMPATIBLE");
    if compatible.is_empty() || !installed.contains(&format!("\ncompatible={compatible}\n")) {
        findings.push(format!(
            "a bundle for {compatible:?} is not what RAUC takes"
        ));
    }
    if installed.contains('@') {
        findings.push("something is not filled in in RAUC's system.conf".to_owned());
    }
    if text_of(bundle, "RAUC_BUNDLE_FORMAT") != "verity" {
        findings.push("the bundle is no verity bundle, and RAUC takes no other".to_owned());
    }
    let recipes = document["recipes"].as_array();
    let disks = recipes.into_iter().flatten().filter(|recipe| {
        let found = text_of(recipe, "WKS_SEARCH_PATH").split(':').any(|folder| {
            let file = Path::new(folder).join(text_of(recipe, "WKS_FILE"));
            !folder.is_empty() && file.is_file()
        });
        text_of(recipe, "PN") == "edgerepl-image" && !found
    });
    findings.extend(disks.map(|recipe| format!("{} has no disk", text_of(recipe, "WKS_FILE"))));
    Ok(("with and without slots".to_owned(), findings))
}

/// What becomes of a recipe of that name.
fn appended_to<'a>(document: &'a Value, name: &str) -> Result<&'a Value, String> {
    let recipes = document["recipes"].as_array();
    let found = recipes
        .into_iter()
        .flatten()
        .find(|recipe| recipe["appended"] == true && text_of(recipe, "PN") == name);
    found.ok_or_else(|| format!("the layer appends nothing to {name}"))
}

fn text_of<'a>(recipe: &'a Value, variable: &str) -> &'a str {
    recipe["variables"][variable].as_str().unwrap_or_default()
}

/// Either packager enables the unit that `dist/` installs, and by a preset that is read before dist's own.
pub(super) fn enabled(bench: &Bench) -> Verdict {
    let mut findings = Findings::new();
    let mut need = |holds: bool, what: &str| {
        if !holds {
            findings.push(what.to_owned());
        }
    };
    let presets = bench.root.join("dist/system-preset");
    let of_dist = "99-edgerepl.preset";
    let text = fs::read_to_string(presets.join(of_dist))?;
    need(
        text.contains(&format!("\ndisable {UNIT}\n")),
        "dist does not disable the unit: a preset for it is not needed",
    );

    let document = yocto::parse(bench, "wrynose", "aarch64", &[])?;
    let recipe = yocto::named(&document, "edgerepl")?;
    let package = UNIT.strip_suffix(".service").unwrap_or(UNIT);
    let variable = |name: &str| text_of(recipe, &format!("{name}:{package}"));
    need(
        text_of(recipe, "SYSTEMD_PACKAGES")
            .split_whitespace()
            .any(|name| name == package),
        "Yocto: no package of the unit's is one with units",
    );
    need(
        variable("SYSTEMD_SERVICE") == UNIT,
        "Yocto: the unit's package does not enable it",
    );
    need(
        variable("FILES")
            .split_whitespace()
            .eq([&*format!("/usr/lib/systemd/system/{UNIT}")]),
        "Yocto: the unit's package does not hold the unit, or more than that",
    );
    let packages: Vec<&str> = text_of(recipe, "PACKAGES").split_whitespace().collect();
    let place = |name: &str| packages.iter().position(|package| *package == name);
    need(
        place(package).is_some() && place(package) < place("edgerepl"),
        "Yocto: the daemon's package takes the unit first",
    );
    // As systemd.bbclass names it.
    need(
        *format!("98-{package}.preset") < *of_dist,
        "Yocto: the package's preset is read after dist's",
    );

    let preset = format!("98-{package}.preset");
    let folder = buildroot::tree(bench).join("package/edgerepl");
    let text = fs::read_to_string(folder.join(&preset))?;
    need(
        text.lines().any(|line| line == format!("enable {UNIT}")) && *preset < *of_dist,
        "Buildroot: its preset does not enable the unit before dist's disables it",
    );
    let makefile = fs::read_to_string(folder.join("edgerepl.mk"))?;
    for file in [&*preset, "S61edgerepl-boot-check", "edgerepl-boot-check"] {
        need(
            makefile.contains(&format!("$(EDGEREPL_PKGDIR)/{file} ")),
            "Buildroot: a file of the trial is not installed",
        );
    }
    Ok((UNIT.to_owned(), findings))
}

#[cfg(test)]
mod tests {
    use super::{Layout, bytes, genimage, of_layout, slots, wks};

    const RAUC: &str = "[system]\n\n[slot.rootfs.0]\ndevice=/dev/disk/by-partlabel/root-a\nbootname=A\n\n\
                        [slot.rootfs.1]\ndevice=/dev/disk/by-partlabel/root-b\nbootname=B\n";

    fn layout() -> Layout {
        let names = "env --offset 4M --fixed-size 8M\nroot-a\nroot-b\ndata\n";
        let disk: String = names
            .lines()
            .map(|name| format!("part --part-name {name}\n"))
            .collect();
        let script = "setenv chosen A\n        setenv partition root-a\n setenv chosen B\n        setenv partition \
                      root-b\n root=PARTLABEL=${partition} rauc.slot=${chosen}";
        Layout {
            disk: wks(&disk),
            rauc: RAUC.to_owned(),
            script: script.to_owned(),
            loader: "CONFIG_ENV_SIZE=0x10000\nCONFIG_ENV_OFFSET=0x400000\nCONFIG_ENV_OFFSET_REDUND=0x800000\n\
                     CONFIG_ENV_REDUNDANT=y\n"
                .to_owned(),
            tools: "# x\n/dev/env 0x0 0x10000\n/dev/env 0x400000 0x10000\n".to_owned(),
        }
    }

    #[test]
    fn a_layout_is_whole_or_something_is_found() {
        assert_eq!(of_layout(&layout()), Vec::<String>::new());
        let broken: [fn(&mut Layout); 6] = [
            |layout| layout.disk.retain(|name, _| name != "root-b"),
            |layout| layout.disk.retain(|name, _| name != "env"),
            |layout| layout.rauc = layout.rauc.replace("root-b", "root-c"),
            |layout| layout.script = layout.script.replace("rauc.slot", "slot"),
            |layout| layout.loader = layout.loader.replace("0x800000", "0xc00000"),
            |layout| layout.tools = layout.tools.replace("0x400000", "0x008000"),
        ];
        for breaks in broken {
            let mut layout = layout();
            breaks(&mut layout);
            assert!(!of_layout(&layout).is_empty());
        }
    }

    #[test]
    fn both_files_of_disks_are_read() {
        let text = "hdimage {\n}\n\tpartition env {\n\t\toffset = 4M\n\t\tsize = 8M\n\t}\n\tpartition data {\n\t}\n";
        let disk = genimage(text);
        assert_eq!(disk["env"], (Some(4 << 20), Some(8 << 20)));
        assert_eq!(disk["data"], (None, None));
        assert_eq!(slots(RAUC)["B"], "root-b");
        assert_eq!(bytes("0x10"), Some(16));
        assert_eq!(bytes("1G"), None);
    }
}
