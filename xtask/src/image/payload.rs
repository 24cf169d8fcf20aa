//! The root's file system: Debian's part, edgerepl as `dist/` installs it, Litestream, and what makes
//! it a device that tests can look into.
//!
//! Owns the image's fixed layout. How edgerepl is installed is for `dist/install.sh` to say; what
//! stands in `files/` belongs to the test image alone.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{File, base, kernel, step};
use crate::target::Target;

/// The squashfs.
pub(super) const ROOT: &str = "root.squashfs";

/// What goes into it.
pub(super) struct Payload<'a> {
    pub(super) target: &'a Target,
    pub(super) base: &'a Path,
    pub(super) kernel: &'a Path,
    pub(super) edgerepl: &'a Path,
    pub(super) litestream: Option<&'a Path>,
    pub(super) more: More<'a>,
}

/// What the root of one kind of image has, beside what each has.
#[derive(Default)]
pub(super) struct More<'a> {
    pub(super) files: &'a [File],
    /// Units that are enabled where they are installed.
    pub(super) enabled: &'a [&'a str],
}

/// Text files, by their place.
const FILES: &[(&str, &str)] = &[
    ("etc/fstab", include_str!("files/fstab")),
    ("etc/hostname", "edge\n"),
    (
        "etc/hosts",
        "127.0.0.1 localhost\n10.0.2.2 lab.edgerepl.test\n",
    ),
    // There is no DNS: a name that is not in the file above is unknown at once.
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\n",
    ),
    // Empty: systemd makes one up at each boot, and no boot is the first.
    ("etc/machine-id", ""),
    (
        "etc/systemd/journald.conf.d/image.conf",
        "[Journal]\nStorage=volatile\nForwardToConsole=no\n",
    ),
    // systemd feeds the hardware's watchdog.
    (
        "etc/systemd/system.conf.d/image.conf",
        "[Manager]\nRuntimeWatchdogSec=20s\nShowStatus=yes\n",
    ),
    (
        "etc/systemd/network/image.network",
        "[Match]\nName=e*\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n\
         LinkLocalAddressing=no\nIPv6AcceptRA=no\n",
    ),
    (
        "usr/lib/systemd/system/edgerepl.service.d/softhsm.conf",
        super::SOFTHSM,
    ),
    (
        "usr/lib/systemd/system/edgerepl-restore.service.d/softhsm.conf",
        super::SOFTHSM,
    ),
    (
        "usr/lib/systemd/system/edgerepl-restore.service.d/restore.conf",
        super::RESTORE,
    ),
    // Debian makes these when it installs udev, whose rules name them.
    (
        "usr/lib/sysusers.d/udev.conf",
        "g input -\ng kvm -\ng render -\ng sgx -\n",
    ),
    // As the package of a secure element's module brings them.
    ("usr/lib/sysusers.d/i2c.conf", "g i2c -\n"),
    (
        "usr/lib/udev/rules.d/60-i2c.rules",
        "SUBSYSTEM==\"i2c-dev\", GROUP=\"i2c\", MODE=\"0660\"\n",
    ),
    (
        "etc/systemd/system/systemd-udev-trigger.service.d/image.conf",
        include_str!("files/udev-trigger.conf"),
    ),
    (
        "usr/lib/systemd/system/test-data.service",
        include_str!("files/test-data.service"),
    ),
    (
        "usr/lib/systemd/system/test-shell.service",
        include_str!("files/test-shell.service"),
    ),
    (
        "usr/lib/udev/rules.d/99-test-shell.rules",
        include_str!("files/test-shell.rules"),
    ),
    ("usr/lib/edgerepl-test/data.conf", super::OWNERS),
];

/// Links, by their place.
const LINKS: &[(&str, &str)] = &[
    ("etc/litestream.yml", "/data/edgerepl/litestream.yml"),
    ("etc/mtab", "../proc/self/mounts"),
    (
        "etc/systemd/system/default.target",
        "/usr/lib/systemd/system/multi-user.target",
    ),
];

/// Where the root has nothing yet but something is mounted.
const MOUNT_POINTS: &[&str] = &["data", "dev", "proc", "run", "srv", "sys", "tmp", "var"];

const ENABLED: &[&str] = &[
    "edgerepl.service",
    "edgerepl-restore.service",
    "systemd-networkd.service",
    "test-data.service",
];

/// What has nothing to do on such a device, and costs an emulated one its time.
const MASKED: &[&str] = &[
    "cryptsetup.target",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "integritysetup.target",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "remote-cryptsetup.target",
    "remote-veritysetup.target",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-initctl.socket",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-journald-audit.socket",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-network-generator.service",
    "systemd-networkd-wait-online.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-repart.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
    "veritysetup.target",
];

/// What reads the machine's state at boot to make units of it; of these one is enough.
const GENERATORS: &str = "usr/lib/systemd/system-generators";
const GENERATOR_KEPT: &str = "systemd-fstab-generator";

/// udev's rules for what the machine has: disks, a network, ports.
const UDEV_RULES: &str = "usr/lib/udev/rules.d";
const UDEV_RULES_KEPT: &[&str] = &[
    "50-udev-default.rules",
    "60-block.rules",
    "60-persistent-storage.rules",
    "80-drivers.rules",
    "99-systemd.rules",
];

impl Payload<'_> {
    /// All that the root is made from, but for the Debian packages and the modules.
    pub(super) fn inputs(&self) -> Vec<PathBuf> {
        let source = super::source("");
        let mut inputs = vec![
            edgerepl_tools::root().join("dist"),
            self.edgerepl.to_owned(),
            source.join("files"),
            source.join("payload.rs"),
            self.base.with_extension("stamp"),
            self.kernel.with_extension("stamp"),
        ];
        inputs.extend(self.litestream.map(Path::to_owned));
        inputs
    }

    /// Makes the root's file system.
    pub(super) fn build(&self, into: &Path) -> Result<(), Box<dyn Error>> {
        let root = into.join("tree");
        self.make_tree(&root)?;
        let squashfs = into.join(ROOT);
        let mut mksquashfs = Command::new("mksquashfs");
        mksquashfs.arg(&root).arg(&squashfs);
        mksquashfs.args(["-comp", "zstd", "-Xcompression-level", "9", "-all-root"]);
        mksquashfs.args(["-noappend", "-no-xattrs", "-no-progress", "-quiet"]);
        step::run(&mut mksquashfs)?;
        Ok(fs::remove_dir_all(&root)?)
    }

    /// Makes all that is in it.
    pub(super) fn make_tree(&self, root: &Path) -> Result<(), Box<dyn Error>> {
        let arch = self.target.arch;
        println!("image: making the root for {arch}");
        let copy = |from: &Path, to: &Path| {
            let mut copy = Command::new("cp");
            copy.args(["--archive", "--reflink=auto"]);
            step::run(copy.arg(from).arg(to)).map(drop)
        };
        copy(&self.base.join(base::TREE), root)?;
        self.trim(root)?;
        let modules = self.kernel.join(kernel::MODULES);
        copy(&modules, &root.join("usr/lib/modules"))?;
        self.install_edgerepl(root)?;
        match self.litestream {
            Some(litestream) => step::put_program(root, "usr/bin/litestream", litestream)?,
            None => println!("image: {arch} has no Litestream: no build of it is known"),
        }
        self.configure(root)
    }

    fn trim(&self, root: &Path) -> Result<(), Box<dyn Error>> {
        keep_only(&root.join(GENERATORS), &[GENERATOR_KEPT])?;
        keep_only(&root.join(UDEV_RULES), UDEV_RULES_KEPT)
    }

    fn install_edgerepl(&self, root: &Path) -> Result<(), Box<dyn Error>> {
        let mut install = Command::new(edgerepl_tools::root().join("dist/install.sh"));
        install.arg("image").env("DESTDIR", root);
        step::run(install.env("BINARY", self.edgerepl)).map(drop)
    }

    fn configure(&self, root: &Path) -> Result<(), Box<dyn Error>> {
        for (path, text) in FILES {
            step::put(root, path, text)?;
        }
        for file in self.more.files {
            file.put(root)?;
        }
        for (path, leads_to) in LINKS {
            step::link(root, path, leads_to)?;
        }
        for path in MOUNT_POINTS {
            fs::create_dir_all(root.join(path))?;
        }
        for unit in MASKED {
            step::link(root, &format!("etc/systemd/system/{unit}"), "/dev/null")?;
        }
        let root_option = |program: &str| {
            let mut command = Command::new(program);
            command.arg(format!("--root={}", root.display()));
            command
        };
        let units = root.join("usr/lib/systemd/system");
        let more = self.more.enabled.iter();
        let more = more.filter(|unit| units.join(unit).is_file());
        let enabled = ENABLED.iter().chain(more);
        step::run(root_option("systemctl").arg("enable").args(enabled))?;
        step::run(&mut root_option("systemd-sysusers")).map(drop)
    }
}

fn keep_only(directory: &Path, kept: &[&str]) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !kept.iter().any(|name| entry.file_name() == *name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
