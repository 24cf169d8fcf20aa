//! What a root in a slot has, beside what each image's has: the list of packages and modules.
//!
//! Owns that list alone, so that only a change of it has them downloaded anew.

use super::super::{Kind, kernel};

pub(super) const KIND: Kind = Kind {
    packages: &[
        // What fetches a bundle, with a key in a token: Debian's RAUC is built without streaming.
        "curl",
        "dbus",
        "libengine-pkcs11-openssl",
        "libubootenv-tool",
        "rauc",
        "rauc-service",
    ],
    modules: kernel::More {
        // ext4 asks for its checksum by name, so that no list of modules says that it needs it.
        early: &["crc32c_generic", "ext4"],
        // What RAUC mounts a bundle with.
        late: &["loop", "dm-mod", "dm-verity", "squashfs"],
    },
    sources: &["slots/parts.rs"],
};
