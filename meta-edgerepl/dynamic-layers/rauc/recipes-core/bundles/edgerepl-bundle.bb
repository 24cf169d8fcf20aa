# nooelint: oelint.file.underscores, oelint.var.mandatoryvar.SRC_URI
SUMMARY = "An update of edgerepl-image, for RAUC"
DESCRIPTION = "\
A signed bundle with the root file system of edgerepl-image. RAUC_KEY_FILE and RAUC_CERT_FILE are the \
product's, and have no place in a layer."
LICENSE = "MIT"

inherit bundle

# As rauc-conf has it.
EDGEREPL_COMPATIBLE ?= "edgerepl-${MACHINE}"
RAUC_BUNDLE_COMPATIBLE = "${EDGEREPL_COMPATIBLE}"
RAUC_BUNDLE_VERSION ?= "${DISTRO_VERSION}"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "rootfs"
RAUC_SLOT_rootfs = "edgerepl-image"
RAUC_SLOT_rootfs[fstype] = "ext4"

# It can't be made without keys.
EXCLUDE_FROM_WORLD = "1"
