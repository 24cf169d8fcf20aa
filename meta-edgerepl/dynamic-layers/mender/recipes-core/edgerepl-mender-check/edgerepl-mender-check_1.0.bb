SUMMARY = "Mender commits an update once edgerepl is healthy"
DESCRIPTION = "\
A state script for the Mender Artifact of an image: as long as edgerepl status says that the device \
does not replicate, Mender asks again, and rolls back in the end."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
CVE_PRODUCT = "edgerepl"

SRC_URI = "file://ArtifactCommit_Enter_50_edgerepl;subdir=${BP}"

inherit allarch mender-state-scripts

do_configure[noexec] = "1"

do_compile() {
    install -m 0755 ${S}/ArtifactCommit_Enter_50_edgerepl ${MENDER_STATE_SCRIPTS_DIR}
}

# The script travels in the Artifact; the image has nothing of it.
ALLOW_EMPTY:${PN} = "1"
RDEPENDS:${PN} = "edgerepl"
