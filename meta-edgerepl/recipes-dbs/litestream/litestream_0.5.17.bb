SUMMARY = "Streaming replication of SQLite databases to S3"
DESCRIPTION = "\
Litestream copies a SQLite database's write-ahead log to object storage as it is written. Upstream's \
own release binary: static, and built with a Go that not every supported OpenEmbedded release has."
HOMEPAGE = "https://litestream.io"
BUGTRACKER = "https://github.com/benbjohnson/litestream/issues"
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# Never older than 0.5.17: before it the SQLite inside can lose what others commit.
LITESTREAM_ARCH = ""
LITESTREAM_ARCH:aarch64 = "arm64"
LITESTREAM_ARCH:armv7a = "armv7"
LITESTREAM_ARCH:armv7ve = "armv7"
LITESTREAM_ARCH:x86-64 = "x86_64"

# For armv7 this layer knows no checksum that two sources agree on. The release's checksums.txt has it.
LITESTREAM_SHA256_ARMV7 ?= ""

SRC_URI = "https://github.com/benbjohnson/litestream/releases/download/v${PV}/litestream-${PV}-linux-${LITESTREAM_ARCH}.tar.gz;name=${LITESTREAM_ARCH};subdir=${BP}"
SRC_URI[arm64.sha256sum] = "f8ca4a050095c1efbda2c4365172e61bf9d955ea0d9ac42f448b52e51819baa5"
SRC_URI[armv7.sha256sum] = "${LITESTREAM_SHA256_ARMV7}"
SRC_URI[x86_64.sha256sum] = "cfb371176d164437ae869f8351cfde49bd1804ae71c61923f75c9cba9c9c006d"

python () {
    arch = d.getVar("LITESTREAM_ARCH")
    if not arch:
        raise bb.parse.SkipRecipe(
            "litestream %s has no release for %s: provide the package litestream by a recipe of your own"
            % (d.getVar("PV"), d.getVar("TUNE_PKGARCH")))
    if arch == "armv7" and not d.getVar("LITESTREAM_SHA256_ARMV7"):
        raise bb.parse.SkipRecipe(
            "LITESTREAM_SHA256_ARMV7 is not set: give it the sha256 that checksums.txt of Litestream's "
            "release v%s has for litestream-%s-linux-armv7.tar.gz" % (d.getVar("PV"), d.getVar("PV")))
}

do_install() {
    install -D -m 0755 ${S}/litestream ${D}${bindir}/litestream
}

# As upstream built it.
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
INHIBIT_SYSROOT_STRIP = "1"
# Upstream strips its releases, and Go's linker knows no GNU_HASH and no flags of ours.
# nooelint: oelint.vars.insaneskip
INSANE_SKIP:${PN} = "already-stripped ldflags"

# S3's certificate is checked against the system's roots.
RDEPENDS:${PN} = "ca-certificates"
