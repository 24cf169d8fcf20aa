# What every recipe has.
SRC_URI ?= ""
PACKAGE_BEFORE_PN ?= ""
PACKAGES ?= "${PN}-dbg ${PN}-dev ${PN}-doc ${PACKAGE_BEFORE_PN} ${PN}"
EXTRA_OECONF ?= ""
PACKAGECONFIG ??= ""
PACKAGECONFIG_CONFARGS ??= ""
do_install() {
    :
}
python do_fetch() {
    pass
}
addtask fetch
