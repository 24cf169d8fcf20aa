SUMMARY = "Mender commits an update once edgerepl is healthy"
DESCRIPTION = "\
State scripts for the Mender Artifact of an image, by edgerepl boot-check: an image on which the device \
replicates is committed, one that may not stay is rolled back, and until it is known Mender asks again."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
CVE_PRODUCT = "edgerepl"

SRC_URI = "\
    file://ArtifactCommit_Enter_50_edgerepl;subdir=${BP} \
    file://ArtifactReboot_Enter_50_edgerepl;subdir=${BP} \
"

inherit allarch mender-state-scripts

do_configure[noexec] = "1"

do_compile() {
    install -m 0755 ${S}/ArtifactCommit_Enter_50_edgerepl ${S}/ArtifactReboot_Enter_50_edgerepl ${MENDER_STATE_SCRIPTS_DIR}
}

# The scripts travel in the Artifact; the image has nothing of them.
ALLOW_EMPTY:${PN} = "1"
RDEPENDS:${PN} = "edgerepl"
