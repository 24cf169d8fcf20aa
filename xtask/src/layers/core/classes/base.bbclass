# What every recipe has.
SRC_URI ?= ""
PACKAGES ?= "${PN}-dbg ${PN}-dev ${PN}"
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
