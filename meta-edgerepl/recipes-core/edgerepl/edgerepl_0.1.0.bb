SUMMARY = "SQLite replicated to S3 with credentials that live for minutes"
DESCRIPTION = "\
edgerepl keeps a device's SQLite database replicated to S3. It fetches temporary credentials from \
the AWS IoT Core credential provider by mutual TLS, signing with a private key that never leaves a \
secure element (PKCS#11), renews them ahead of expiry, and hands them to Litestream, which moves \
the data."
SECTION = "base"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "\
    file://LICENSE-MIT;md5=e6e6f9b1e6ce86e23ffe7309a218c0f9 \
    file://LICENSE-APACHE;md5=1836efb2eb779966696f473ee8540542 \
"
CVE_PRODUCT = "edgerepl"

# The source is the repository that this layer is a folder of, or wherever a product keeps it: a
# path that is no recipe's, and so one that bitbake would not search.
EDGEREPL_SOURCE ?= "${@os.path.normpath('${THISDIR}/../../..')}"
# nooelint: oelint.vars.fileextrapaths, oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${EDGEREPL_SOURCE}:"
CARGO_LOCK_FILE = "${EDGEREPL_SOURCE}/Cargo.lock"

# What is built; cargo_lock adds the crates.
SRC_URI = "\
    file://Cargo.toml;subdir=${BP} \
    file://Cargo.lock;subdir=${BP} \
    file://LICENSE-APACHE;subdir=${BP} \
    file://LICENSE-MIT;subdir=${BP} \
    file://README.md;subdir=${BP} \
    file://build.rs;subdir=${BP} \
    file://dist;subdir=${BP} \
    file://src;subdir=${BP} \
    file://softhsm.conf \
    file://softhsm2.conf \
    file://softhsm-tmpfiles.conf \
    file://supervisor-systemd.toml \
"

inherit cargo cargo_lock features_check pkgconfig ptest-cargo systemd useradd

# The units are the only way that edgerepl is started.
REQUIRED_DISTRO_FEATURES = "systemd"

# system-sqlite       links the image's SQLite instead of compiling one in, which gives verify pages
# cryptoauthlib       a secure element on I2C: the module, and access to CRYPTOAUTHLIB_I2C_BUS
# p11-kit             modules by p11-kit-proxy
# restore             a database that was lost is restored before edgerepl and the application start
# softhsm             keys in files on /data: for development alone
# supervisor-systemd  Litestream as a unit of its own; without it edgerepl runs Litestream
PACKAGECONFIG ??= ""
PACKAGECONFIG[system-sqlite] = ",,sqlite3"
PACKAGECONFIG[cryptoauthlib] = ",,,cryptoauthlib"
PACKAGECONFIG[p11-kit] = ",,,p11-kit"
PACKAGECONFIG[restore] = ""
PACKAGECONFIG[softhsm] = ",,,softhsm"
PACKAGECONFIG[supervisor-systemd] = ""

# The number of the bus that the secure element is on, for cryptoauthlib's recipe too.
CRYPTOAUTHLIB_I2C_BUS ?= "1"

CARGO_BUILD_FLAGS:append = " ${@bb.utils.contains('PACKAGECONFIG', 'system-sqlite', '--no-default-features', '', d)}"
# Symbols go into the -dbg package, not away.
export CARGO_PROFILE_RELEASE_STRIP = "none"
# The C and the assembler code of crates is outside S, and its paths would be in the -dbg package.
DEBUG_PREFIX_MAP:append = " -ffile-prefix-map=${CARGO_HOME}=${TARGET_DBGSRC_DIR}"

# What two of cargo's files say that this build has to know: the Rust that edgerepl needs, before an
# older one is built for an hour; and how SQLite is compiled, which cargo itself does not see here.
def edgerepl_in_source(d, path, pattern):
    import re
    path = os.path.join(d.getVar("EDGEREPL_SOURCE"), path)
    bb.parse.mark_dependency(d, path)
    try:
        with open(path, encoding="utf-8") as text:
            found = re.search(pattern, text.read(), re.DOTALL | re.MULTILINE)
    except OSError as cause:
        bb.fatal("%s cannot be read (%s): EDGEREPL_SOURCE has to name edgerepl's repository"
                 % (path, cause.strerror))
    if not found:
        bb.fatal("%s has nothing that looks like %s, which edgerepl's recipe reads: mend the one or the "
                 "other" % (path, pattern))
    return found.group(1)

export LIBSQLITE3_FLAGS
python () {
    flags = edgerepl_in_source(d, ".cargo/config.toml", r'^LIBSQLITE3_FLAGS = """(.*?)"""')
    d.setVar("LIBSQLITE3_FLAGS", " ".join(flags.split()))

    need = edgerepl_in_source(d, "Cargo.toml", r'^rust-version = "([0-9.]+)"')
    have = (d.getVar("RUSTVERSION") or need).rstrip("%")
    if bb.utils.vercmp_string(have, need) < 0:
        raise bb.parse.SkipRecipe("edgerepl needs Rust %s, and RUSTVERSION is %s: add a layer with a newer "
                                  "Rust, as meta-edgerepl's README says" % (need, have))
}

do_configure:append() {
    # The rule of src/store/version.rs.
    if ${@bb.utils.contains('PACKAGECONFIG', 'system-sqlite', 'true', 'false', d)} && ! pkg-config --atleast-version=3.51.3 sqlite3; then
        bbfatal "SQLite $(pkg-config --modversion sqlite3) can lose data where one process writes and another checkpoints (fixed in 3.51.3): take system-sqlite out of edgerepl's PACKAGECONFIG, or add a newer SQLite"
    fi
    # Of store::compare: with pages verify compares every byte, without them rows.
    if ${@bb.utils.contains('PACKAGECONFIG', 'system-sqlite', 'true', 'false', d)} && ! grep -qs ENABLE_DBPAGE_VTAB ${STAGING_LIBDIR}/libsqlite3.so; then
        bbwarn "this SQLite gives edgerepl verify rows to compare and no pages: add CFLAGS:append:pn-sqlite3 = ' -DSQLITE_ENABLE_DBPAGE_VTAB' to your configuration, or take system-sqlite out of edgerepl's PACKAGECONFIG"
    fi
}

do_install() {
    DESTDIR=${D} BINARY=${B}/target/${CARGO_TARGET_SUBDIR}/edgerepl \
        UNITDIR=${systemd_system_unitdir} PRESETDIR=${systemd_unitdir}/system-preset \
        SYSUSERSDIR=${nonarch_libdir}/sysusers.d TMPFILESDIR=${nonarch_libdir}/tmpfiles.d \
        MANDIR=${mandir} BASHDIR=${datadir}/bash-completion/completions \
        ZSHDIR=${datadir}/zsh/site-functions FISHDIR=${datadir}/fish/vendor_completions.d \
        sh ${S}/dist/install.sh image

    # Those that use the key.
    for unit in edgerepl edgerepl-restore; do
        dropins=${D}${systemd_system_unitdir}/$unit.service.d
        if ${@bb.utils.contains('PACKAGECONFIG', 'cryptoauthlib', 'true', 'false', d)}; then
            install -D -m 0644 ${S}/dist/drop-ins/i2c.conf $dropins/i2c.conf
            sed -i 's|^\(DeviceAllow=/dev/char/89:\)[0-9]* |\1${CRYPTOAUTHLIB_I2C_BUS} |' $dropins/i2c.conf
        fi
        if ${@bb.utils.contains('PACKAGECONFIG', 'softhsm', 'true', 'false', d)}; then
            install -D -m 0644 ${UNPACKDIR}/softhsm.conf $dropins/softhsm.conf
        fi
    done
    if ${@bb.utils.contains('PACKAGECONFIG', 'softhsm', 'true', 'false', d)}; then
        install -D -m 0644 ${UNPACKDIR}/softhsm2.conf ${D}${datadir}/edgerepl/softhsm2.conf
        install -D -m 0644 ${UNPACKDIR}/softhsm-tmpfiles.conf ${D}${nonarch_libdir}/tmpfiles.d/edgerepl-softhsm.conf
    fi
    if ${@bb.utils.contains('PACKAGECONFIG', 'supervisor-systemd', 'true', 'false', d)}; then
        install -D -m 0644 ${UNPACKDIR}/supervisor-systemd.toml ${D}${nonarch_libdir}/edgerepl/00-supervisor.toml
    fi
}

# The tests look for their data where they were built. No task, but part of one.
# nooelint: oelint.task.docstrings
edgerepl_move_testdata() {
    find ${S}/src -name '*.rs' -exec sed -i 's|env!("CARGO_MANIFEST_DIR")|"${PTEST_PATH}"|' {} +
}
do_compile_ptest_cargo[prefuncs] += "edgerepl_move_testdata"

do_install_ptest() {
    install -d ${D}${PTEST_PATH}/src/credentials
    cp -r ${S}/src/credentials/testdata ${D}${PTEST_PATH}/src/credentials
}

# As dist/sysusers.d has it.
USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --user-group --comment edgerepl --home-dir /nonexistent --no-create-home --shell /sbin/nologin edgerepl"

# The others are started by it; the restore, where it was chosen; the trial of a new image, where its package is
# installed. Each package gets a 98-*.preset, and so comes before the 99-edgerepl.preset of dist.
SYSTEMD_PACKAGES = "${PN} ${PN}-boot-check"
SYSTEMD_SERVICE:${PN} = "edgerepl.service ${@bb.utils.contains('PACKAGECONFIG', 'restore', 'edgerepl-restore.service', '', d)}"
SYSTEMD_SERVICE:${PN}-boot-check = "edgerepl-boot-check.service"

# A device's shell is seldom one of these; the manual is in -doc. The trial of a new image is for firmware with two
# slots and a boot loader that counts.
PACKAGE_BEFORE_PN += "${PN}-bash-completion ${PN}-boot-check ${PN}-fish-completion ${PN}-zsh-completion"
FILES:${PN}-bash-completion += "${datadir}/bash-completion"
FILES:${PN}-boot-check += "${systemd_system_unitdir}/edgerepl-boot-check.service"
FILES:${PN}-fish-completion += "${datadir}/fish"
FILES:${PN}-zsh-completion += "${datadir}/zsh"
FILES:${PN} += "\
    ${nonarch_libdir}/edgerepl \
    ${nonarch_libdir}/sysusers.d \
    ${nonarch_libdir}/tmpfiles.d \
    ${systemd_system_unitdir} \
    ${systemd_unitdir}/system-preset \
"
CONFFILES:${PN} = "\
    ${sysconfdir}/edgerepl/edgerepl.toml \
    ${sysconfdir}/litestream.yml \
"
# Before it Litestream's own SQLite can lose data.
RDEPENDS:${PN} += "litestream (>= 0.5.17)"
RDEPENDS:${PN}-boot-check += "${PN} (= ${EXTENDPKGV})"
# By it verify leaves the disk to others.
RRECOMMENDS:${PN} += "util-linux-ionice"
