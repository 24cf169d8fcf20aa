//! The machines that edgerepl is built for, and what each of them is called by whom.

/// A kind of device.
#[derive(Debug, Eq, PartialEq)]
pub struct Target {
    /// What people call it, as in `--arch aarch64`.
    pub arch: &'static str,
    /// Rust's name.
    pub triple: &'static str,
    /// Debian's name.
    pub debian: &'static str,
    /// GNU's name, with which its tools begin.
    pub gnu: &'static str,
    /// The emulator that runs its programs, as .cargo/config.toml names it.
    pub emulator: &'static str,
}

/// 64 bits: a Raspberry Pi since the third.
pub const AARCH64: Target = Target {
    arch: "aarch64",
    triple: "aarch64-unknown-linux-gnu",
    debian: "arm64",
    gnu: "aarch64-linux-gnu",
    emulator: "qemu-aarch64",
};

/// 32 bits.
pub const ARMV7: Target = Target {
    arch: "armv7",
    triple: "armv7-unknown-linux-gnueabihf",
    debian: "armhf",
    gnu: "arm-linux-gnueabihf",
    emulator: "qemu-arm",
};

/// All that there are.
pub const ALL: [&Target; 2] = [&AARCH64, &ARMV7];

/// The one that people call so.
pub fn named(arch: &str) -> Result<&'static Target, String> {
    let found = ALL.into_iter().find(|target| target.arch == arch);
    found.ok_or_else(|| {
        let known = ALL.map(|target| target.arch).join(" and ");
        format!("there is no architecture {arch:?}; there are {known}")
    })
}
