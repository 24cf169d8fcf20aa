# Of OpenEmbedded's core: as much of it as is appended to.
SUMMARY = "U-Boot"
DESCRIPTION = "${SUMMARY}"
LICENSE = "GPL-2.0-or-later"
UBOOT_ENV ?= ""
UBOOT_ENV_SUFFIX ?= "txt"
