################################################################################
#
# edgerepl
#
################################################################################

EDGEREPL_VERSION = 0.1.0
EDGEREPL_SITE = $(BR2_EXTERNAL_EDGEREPL_PATH)/..
EDGEREPL_SITE_METHOD = local
EDGEREPL_LICENSE = MIT or Apache-2.0
EDGEREPL_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE

EDGEREPL_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = \
	--exclude /buildroot \
	--exclude /docs \
	--exclude /lab \
	--exclude /meta-edgerepl \
	--exclude /target \
	--exclude /tests \
	--exclude /xtask

EDGEREPL_CARGO_BUILD_OPTS = --config .cargo/vendor.toml

# Buildroot's defaults, given by the environment, would win over Cargo.toml's
# release profile: the program would be larger, and its integers would wrap
# silently.
EDGEREPL_CARGO_ENV = env \
	-u CARGO_PROFILE_RELEASE_CODEGEN_UNITS \
	-u CARGO_PROFILE_RELEASE_LTO \
	-u CARGO_PROFILE_RELEASE_OPT_LEVEL \
	-u CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS

ifeq ($(BR2_PACKAGE_EDGEREPL_SYSTEM_SQLITE),y)
EDGEREPL_DEPENDENCIES += host-pkgconf sqlite
EDGEREPL_CARGO_BUILD_OPTS += --no-default-features
EDGEREPL_CARGO_ENV += PKG_CONFIG_ALLOW_CROSS=1
# By pages edgerepl verify compares every byte, and else only rows.
# check-package TypoInPackageVariable
SQLITE_CFLAGS += -DSQLITE_ENABLE_DBPAGE_VTAB
endif

EDGEREPL_BINARY = \
	$(@D)/target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)/edgerepl

# dist/install.sh is the list of what goes where.
ifeq ($(BR2_INIT_SYSTEMD),y)
define EDGEREPL_INSTALL_TARGET_CMDS
	DESTDIR=$(TARGET_DIR) BINARY=$(EDGEREPL_BINARY) $(@D)/dist/install.sh image
endef
else
# What is for systemd alone goes into one folder, and then away.
EDGEREPL_SYSTEMD_DIR = /usr/share/edgerepl/systemd
define EDGEREPL_INSTALL_TARGET_CMDS
	DESTDIR=$(TARGET_DIR) BINARY=$(EDGEREPL_BINARY) \
		UNITDIR=$(EDGEREPL_SYSTEMD_DIR)/system \
		PRESETDIR=$(EDGEREPL_SYSTEMD_DIR)/system-preset \
		SYSUSERSDIR=$(EDGEREPL_SYSTEMD_DIR)/sysusers.d \
		TMPFILESDIR=$(EDGEREPL_SYSTEMD_DIR)/tmpfiles.d \
		$(@D)/dist/install.sh image
	rm -r $(TARGET_DIR)$(EDGEREPL_SYSTEMD_DIR)
endef
endif

ifeq ($(BR2_PACKAGE_EDGEREPL_BOOT_CHECK),y)
define EDGEREPL_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(EDGEREPL_PKGDIR)/98-edgerepl-boot-check.preset \
		$(TARGET_DIR)/usr/lib/systemd/system-preset/98-edgerepl-boot-check.preset
endef
define EDGEREPL_INSTALL_BOOT_CHECK_SYSV
	$(INSTALL) -D -m 0755 $(EDGEREPL_PKGDIR)/edgerepl-boot-check \
		$(TARGET_DIR)/usr/libexec/edgerepl-boot-check
	$(INSTALL) -D -m 0755 $(EDGEREPL_PKGDIR)/S61edgerepl-boot-check \
		$(TARGET_DIR)/etc/init.d/S61edgerepl-boot-check
endef
endif

define EDGEREPL_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(EDGEREPL_PKGDIR)/edgerepl-supervise \
		$(TARGET_DIR)/usr/libexec/edgerepl-supervise
	$(INSTALL) -D -m 0755 $(EDGEREPL_PKGDIR)/S60edgerepl \
		$(TARGET_DIR)/etc/init.d/S60edgerepl
	$(EDGEREPL_INSTALL_BOOT_CHECK_SYSV)
endef

# What the two scripts need of BusyBox, and, for the disk's priorities, verify.
define EDGEREPL_BUSYBOX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_IONICE)
	$(call KCONFIG_ENABLE_OPT,CONFIG_LOGGER)
	$(call KCONFIG_ENABLE_OPT,CONFIG_MKFIFO)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SETPRIV)
	$(call KCONFIG_ENABLE_OPT,CONFIG_TIMEOUT)
endef

# The numbers are fixed: what it owns on the data partition outlives the image.
# A secure element's bus belongs to group i2c; under systemd a drop-in says so.
define EDGEREPL_USERS
	edgerepl 890 edgerepl 890 * - - $(EDGEREPL_GROUPS) Replication of SQLite to S3
endef
EDGEREPL_GROUPS = $(if $(BR2_INIT_SYSTEMD),-,$(if $(BR2_PACKAGE_CRYPTOAUTHLIB),i2c,-))

$(eval $(cargo-package))

# Buildroot vendors the crates of what it downloads, and not of a local source.
# So they are fetched here, once for each Cargo.lock; cargo holds every crate
# against its checksum there.
EDGEREPL_CRATES = $(EDGEREPL_DL_DIR)/edgerepl-crates-$(firstword \
	$(shell sha256sum $(EDGEREPL_OVERRIDE_SRCDIR)/Cargo.lock)).tar.gz
EDGEREPL_CRATES_DIR = $(BUILD_DIR)/edgerepl-crates

$(EDGEREPL_CRATES): PKG = EDGEREPL
$(EDGEREPL_CRATES): | dependencies host-rustc
	@$(call MESSAGE,"Vendoring crates")
	$(call prepare-per-package-directory,host-rustc)
	$(Q)rm -rf $(EDGEREPL_CRATES_DIR)
	$(Q)mkdir -p $(EDGEREPL_CRATES_DIR)/.cargo $(BR_CARGO_HOME) $(EDGEREPL_DL_DIR)
	$(Q)cd $(EDGEREPL_CRATES_DIR) && \
		flock $(BR_CARGO_HOME)/.br-lock \
		env $(TARGET_MAKE_ENV) $(PKG_COMMON_CARGO_ENV) \
		cargo vendor --locked \
			--manifest-path $(EDGEREPL_OVERRIDE_SRCDIR)/Cargo.toml \
			VENDOR >.cargo/vendor.toml
	$(Q)$(TAR) czf $(EDGEREPL_CRATES).tmp -C $(EDGEREPL_CRATES_DIR) .cargo VENDOR
	$(Q)mv $(EDGEREPL_CRATES).tmp $(EDGEREPL_CRATES)
	$(Q)rm -rf $(EDGEREPL_CRATES_DIR)

edgerepl-source: $(EDGEREPL_CRATES)
$(EDGEREPL_TARGET_RSYNC): | $(EDGEREPL_CRATES)

define EDGEREPL_UNPACK_CRATES
	rm -rf $(@D)/VENDOR
	$(TAR) xf $(EDGEREPL_CRATES) -C $(@D)
endef
EDGEREPL_POST_RSYNC_HOOKS += EDGEREPL_UNPACK_CRATES
