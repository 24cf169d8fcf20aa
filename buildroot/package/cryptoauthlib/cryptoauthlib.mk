################################################################################
#
# cryptoauthlib
#
################################################################################

# v3.7.8
CRYPTOAUTHLIB_VERSION = a7bbe3a2d6851dea2ae624b598a823c0fb70d48c
CRYPTOAUTHLIB_SITE = https://github.com/MicrochipTech/cryptoauthlib
CRYPTOAUTHLIB_SITE_METHOD = git
CRYPTOAUTHLIB_LICENSE = Microchip (use with Microchip products only)
CRYPTOAUTHLIB_LICENSE_FILES = license.txt

# SETUP_INSTALLER installs the configuration only where the building machine has
# none, and a folder that everybody may write.
CRYPTOAUTHLIB_CONF_OPTS = \
	-DATCA_HAL_I2C=ON \
	-DATCA_PKCS11=ON \
	-DATCA_TFLEX_SUPPORT=ON \
	-DATCA_TNGTLS_SUPPORT=ON \
	-DDEFAULT_CONF_PATH=/etc/cryptoauthlib \
	-DDEFAULT_LIB_PATH=/usr/lib \
	-DSETUP_INSTALLER=OFF

# The store is a link to the data partition, since the module writes to it when
# a key is made. It reads no slot's file that is a link itself.
define CRYPTOAUTHLIB_INSTALL_CONFIG
	$(INSTALL) -D -m 0644 $(CRYPTOAUTHLIB_PKGDIR)/cryptoauthlib.conf \
		$(TARGET_DIR)/etc/cryptoauthlib/cryptoauthlib.conf
	ln -snf /data/cryptoauthlib $(TARGET_DIR)/etc/cryptoauthlib/store
	$(INSTALL) -d -m 0755 $(TARGET_DIR)/usr/share/cryptoauthlib
	$(INSTALL) -m 0644 $(CRYPTOAUTHLIB_PKGDIR)/slots/*.conf \
		$(TARGET_DIR)/usr/share/cryptoauthlib
endef
CRYPTOAUTHLIB_POST_INSTALL_TARGET_HOOKS += CRYPTOAUTHLIB_INSTALL_CONFIG

# Whoever is in group i2c may use the bus.
define CRYPTOAUTHLIB_USERS
	- - i2c -1 * - - - I2C buses
endef

ifeq ($(BR2_PACKAGE_HAS_UDEV),y)
define CRYPTOAUTHLIB_INSTALL_UDEV_RULES
	$(INSTALL) -D -m 0644 $(CRYPTOAUTHLIB_PKGDIR)/70-i2c.rules \
		$(TARGET_DIR)/usr/lib/udev/rules.d/70-i2c.rules
endef
CRYPTOAUTHLIB_POST_INSTALL_TARGET_HOOKS += CRYPTOAUTHLIB_INSTALL_UDEV_RULES
else ifeq ($(BR2_ROOTFS_DEVICE_CREATION_DYNAMIC_MDEV),y)
define CRYPTOAUTHLIB_ADD_MDEV_RULE
	grep -q '^i2c-' $(TARGET_DIR)/etc/mdev.conf || \
		echo 'i2c-[0-9]+	root:i2c 0660' >>$(TARGET_DIR)/etc/mdev.conf
endef
CRYPTOAUTHLIB_TARGET_FINALIZE_HOOKS += CRYPTOAUTHLIB_ADD_MDEV_RULE
endif

$(eval $(cmake-package))
