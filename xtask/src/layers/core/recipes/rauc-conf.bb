# Of meta-rauc: as much of it as is appended to.
SUMMARY = "RAUC's configuration"
DESCRIPTION = "${SUMMARY}"
LICENSE = "MIT"
RAUC_KEYRING_FILE ??= "ca.cert.pem"
SRC_URI = "file://system.conf"
do_install() {
    install -D -m 0644 ${UNPACKDIR}/system.conf ${D}${nonarch_libdir}/rauc/system.conf
}
