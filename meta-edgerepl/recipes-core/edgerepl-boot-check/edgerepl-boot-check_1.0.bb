SUMMARY = "A boot is complete once edgerepl is healthy"
DESCRIPTION = "\
Holds boot-complete.target until edgerepl status says healthy, so that RAUC, systemd-boot or \
whoever else waits for that target calls an update good only where the device replicates."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
CVE_PRODUCT = "edgerepl"

SRC_URI = "file://edgerepl-boot-check.service;subdir=${BP}"

inherit allarch features_check systemd

REQUIRED_DISTRO_FEATURES = "systemd"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${S}/edgerepl-boot-check.service ${D}${systemd_system_unitdir}/edgerepl-boot-check.service
}

SYSTEMD_SERVICE:${PN} = "edgerepl-boot-check.service"
RDEPENDS:${PN} = "edgerepl"
