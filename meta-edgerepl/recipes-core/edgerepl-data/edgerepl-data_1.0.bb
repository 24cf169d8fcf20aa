SUMMARY = "The data partition, mounted at /data"
DESCRIPTION = "\
Mounts the file system that is labelled data: part of the root file system and not of the disk's \
image, so that an update brings it too."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
CVE_PRODUCT = "edgerepl"

SRC_URI = "file://data.mount;subdir=${BP}"

inherit allarch features_check systemd

REQUIRED_DISTRO_FEATURES = "systemd"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${S}/data.mount ${D}${systemd_system_unitdir}/data.mount
    install -d ${D}/data
}

SYSTEMD_SERVICE:${PN} = "data.mount"
FILES:${PN} += "/data"
RDEPENDS:${PN} = "e2fsprogs-e2fsck"
