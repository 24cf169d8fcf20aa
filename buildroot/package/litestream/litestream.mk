################################################################################
#
# litestream
#
################################################################################

# Never older than 0.5.17: before it Litestream checkpoints with an SQLite that
# may reset the write-ahead log under the application, which loses rows.
LITESTREAM_VERSION = 0.5.17
LITESTREAM_SITE = https://github.com/benbjohnson/litestream/releases/download/v$(LITESTREAM_VERSION)
LITESTREAM_SOURCE = litestream-$(LITESTREAM_VERSION)-linux-$(LITESTREAM_ARCH).tar.gz
LITESTREAM_STRIP_COMPONENTS = 0
LITESTREAM_LICENSE = Apache-2.0
LITESTREAM_LICENSE_FILES = LICENSE

ifeq ($(BR2_aarch64),y)
LITESTREAM_ARCH = arm64
else ifeq ($(BR2_x86_64),y)
LITESTREAM_ARCH = x86_64
else
LITESTREAM_ARCH = armv7
LITESTREAM_ARMV7_SHA256 = $(call qstrip,$(BR2_PACKAGE_LITESTREAM_ARMV7_SHA256))
LITESTREAM_ARMV7_UNKNOWN = \
	The sha256 of $(LITESTREAM_SOURCE) is not known to this tree: \
	set BR2_PACKAGE_LITESTREAM_ARMV7_SHA256 to what checksums.txt of \
	upstream's release v$(LITESTREAM_VERSION) says
ifeq ($(BR_BUILDING)$(BR2_PACKAGE_LITESTREAM)$(LITESTREAM_ARMV7_SHA256),yy)
$(error $(LITESTREAM_ARMV7_UNKNOWN))
endif

LITESTREAM_ARMV7_HASH = $(LITESTREAM_DL_DIR)/armv7.hash
define LITESTREAM_WRITE_ARMV7_HASH
	$(if $(LITESTREAM_ARMV7_SHA256),,$(error $(LITESTREAM_ARMV7_UNKNOWN)))
	$(Q)mkdir -p $(LITESTREAM_DL_DIR)
	$(Q)echo 'sha256  $(LITESTREAM_ARMV7_SHA256)  $(LITESTREAM_SOURCE)' >$(LITESTREAM_ARMV7_HASH)
endef
LITESTREAM_PRE_DOWNLOAD_HOOKS += LITESTREAM_WRITE_ARMV7_HASH
endif

define LITESTREAM_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/litestream $(TARGET_DIR)/usr/bin/litestream
endef

$(eval $(generic-package))

# Beside the package's own hash file.
LITESTREAM_HASH_FILES += $(LITESTREAM_ARMV7_HASH)
