SUMMARY = "An update by SWUpdate is confirmed once edgerepl is healthy"
DESCRIPTION = "\
Tells the boot loader and SWUpdate that the booted image stays, after boot-complete.target, which \
edgerepl-boot-check holds until the device replicates."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
CVE_PRODUCT = "edgerepl"

SRC_URI = "\
    file://edgerepl-swupdate-confirm.in;subdir=${BP} \
    file://edgerepl-swupdate-confirm.service.in;subdir=${BP} \
"

inherit allarch features_check systemd

REQUIRED_DISTRO_FEATURES = "systemd"

# What a good image has in SWUpdate's variable: 0, or 2 where its suricatta reports to hawkBit.
EDGEREPL_SWUPDATE_STATE ?= "0"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    fill() { # MODE TEMPLATE PATH
        install -D -m $1 ${S}/$2 ${D}$3
        sed -i -e 's|@STATE@|${EDGEREPL_SWUPDATE_STATE}|' -e 's|@LIBEXECDIR@|${libexecdir}|' ${D}$3
    }
    fill 0755 edgerepl-swupdate-confirm.in ${libexecdir}/edgerepl-swupdate-confirm
    fill 0644 edgerepl-swupdate-confirm.service.in ${systemd_system_unitdir}/edgerepl-swupdate-confirm.service
}

SYSTEMD_SERVICE:${PN} = "edgerepl-swupdate-confirm.service"
# fw_setenv, by whichever package has it.
RDEPENDS:${PN} = "edgerepl-boot-check u-boot-fw-utils"
