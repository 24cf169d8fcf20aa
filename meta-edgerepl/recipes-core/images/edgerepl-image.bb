SUMMARY = "A firmware whose database is replicated to S3"
DESCRIPTION = "\
systemd on a read-only root, two slots for it, and a data partition: an example to copy, and what \
the kas files build."
LICENSE = "MIT"

IMAGE_FEATURES += "read-only-rootfs"
IMAGE_INSTALL = "packagegroup-core-boot packagegroup-edgerepl ${CORE_IMAGE_EXTRA_INSTALL}"
IMAGE_LINGUAS = ""

inherit core-image features_check

REQUIRED_DISTRO_FEATURES = "systemd"

IMAGE_FSTYPES += "wic"
WKS_FILE = "edgerepl-image.wks.in"
# Where 6.0 looks by itself. A path: no space.
# nooelint: oelint.vars.inconspaces
WKS_SEARCH_PATH:append = ":${THISDIR}/../../files/wic"

EDGEREPL_SLOT_SIZE ?= "512M"
EDGEREPL_DATA_SIZE ?= "256M"
# A boot partition where the machine wants one.
EDGEREPL_BOOT_PART ?= ""
# wic's name for what fills a boot partition, which is another one since 6.0.
EDGEREPL_BOOT_SOURCE = "${@bb.utils.contains('LAYERSERIES_CORENAMES', 'scarthgap', 'bootimg-partition', 'bootimg_partition', d)}"
# meta-raspberrypi's override.
# nooelint: oelint.vars.specific
EDGEREPL_BOOT_PART:rpi ?= "part --source ${EDGEREPL_BOOT_SOURCE} --fstype=vfat --label boot --active --align 4096 --fixed-size 128M"

# QEMU gets the kernel from outside; the first slot is the first partition.
QB_DEFAULT_FSTYPE = "wic"
QB_FSINFO = "wic:no-kernel-in-fs"
QB_KERNEL_ROOT = "/dev/vda1 ro"
