SUMMARY = "Microchip's library and PKCS#11 module for the ATECC608"
DESCRIPTION = "\
Lets PKCS#11 applications use the keys of a secure element of the ATECC608 family on an I2C bus: \
TNGTLS and TFLXTLS parts with Microchip's provisioning, TrustCustom parts with one's own."
HOMEPAGE = "https://github.com/MicrochipTech/cryptoauthlib"
BUGTRACKER = "https://github.com/MicrochipTech/cryptoauthlib/issues"
SECTION = "libs"
# "Exclusively with Microchip products": no licence that SPDX lists.
LICENSE = "Microchip-CAL"
NO_GENERIC_LICENSE[Microchip-CAL] = "license.txt"
LIC_FILES_CHKSUM = "file://license.txt;md5=a8c976d0e5ede3a6b86315f5fd6015be"

SRC_URI = "\
    git://github.com/MicrochipTech/cryptoauthlib.git;protocol=https;branch=main;destsuffix=${BP} \
    file://cryptoauthlib.module.in \
    file://i2c.rules.in \
    file://tmpfiles.conf.in \
    file://tflxtls.conf.in \
    file://tngtls.conf.in \
    file://trustcustom.conf.in \
"
# v3.7.8
SRCREV = "a7bbe3a2d6851dea2ae624b598a823c0fb70d48c"

inherit cmake useradd

# The part: tngtls, tflxtls or trustcustom.
CRYPTOAUTHLIB_PART ?= "trustcustom"
# The number of its bus, in decimal.
CRYPTOAUTHLIB_I2C_BUS ?= "1"
# The folder of slots. The module ignores a slot's file that is a link, and writes beside it when it
# makes keys: so it is a folder on the data partition, filled from the image.
CRYPTOAUTHLIB_STORE ?= "/data/cryptoauthlib"

EXTRA_OECMAKE = "\
    -DATCA_HAL_I2C=ON \
    -DATCA_PKCS11=ON \
    -DATCA_TFLEX_SUPPORT=ON \
    -DATCA_TNGTLS_SUPPORT=ON \
    -DDEFAULT_CONF_PATH=${sysconfdir}/cryptoauthlib \
    -DDEFAULT_STORE_PATH=${CRYPTOAUTHLIB_STORE} \
"

do_install:append() {
    # The folder would be 0777, and is the data partition's.
    rm -r ${D}${CRYPTOAUTHLIB_STORE}
    rmdir -p --ignore-fail-on-non-empty ${D}$(dirname ${CRYPTOAUTHLIB_STORE})

    # Upstream's build leaves it out where the build machine has one.
    install -d ${D}${sysconfdir}/cryptoauthlib
    echo "filestore = ${CRYPTOAUTHLIB_STORE}" > ${D}${sysconfdir}/cryptoauthlib/cryptoauthlib.conf
    chmod 0644 ${D}${sysconfdir}/cryptoauthlib/cryptoauthlib.conf

    fill() { # TEMPLATE PATH
        install -D -m 0644 ${UNPACKDIR}/$1 ${D}$2
        sed -i -e 's|@BUS@|${CRYPTOAUTHLIB_I2C_BUS}|' \
               -e 's|@BUS_HEX@|${@'%X' % int(d.getVar('CRYPTOAUTHLIB_I2C_BUS'))}|' \
               -e 's|@LIBDIR@|${libdir}|' \
               -e 's|@PART@|${CRYPTOAUTHLIB_PART}|' \
               -e 's|@STORE@|${CRYPTOAUTHLIB_STORE}|' ${D}$2
    }
    for part in tflxtls tngtls trustcustom; do
        fill $part.conf.in ${datadir}/cryptoauthlib/$part.conf
    done
    fill cryptoauthlib.module.in ${datadir}/p11-kit/modules/cryptoauthlib.module
    fill i2c.rules.in ${nonarch_base_libdir}/udev/rules.d/60-cryptoauthlib.rules
    fill tmpfiles.conf.in ${nonarch_libdir}/tmpfiles.d/cryptoauthlib.conf
    install -d ${D}${nonarch_libdir}/modules-load.d
    echo i2c-dev > ${D}${nonarch_libdir}/modules-load.d/cryptoauthlib.conf
}

USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system i2c"

# Applications load it by name, without a version.
FILES_SOLIBSDEV = ""
FILES:${PN} += "\
    ${datadir}/p11-kit \
    ${libdir}/libcryptoauth.so \
    ${nonarch_base_libdir}/udev \
    ${nonarch_libdir}/modules-load.d \
    ${nonarch_libdir}/tmpfiles.d \
"
# nooelint: oelint.vars.insaneskip
INSANE_SKIP:${PN} = "dev-so"
CONFFILES:${PN} = "${sysconfdir}/cryptoauthlib/cryptoauthlib.conf"
# "cryptoauthlib" is what edgerepl asks for, not libcryptoauth3.
DEBIAN_NOAUTONAME:${PN} = "1"
RRECOMMENDS:${PN} = "kernel-module-i2c-dev"
