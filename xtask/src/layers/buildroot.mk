# A stand-in for Buildroot's infrastructure: says what the packages of a tree are, and builds nothing.
#
#   make -f buildroot.mk TREE=… BR2_aarch64=y BR_BUILDING=y …: NAME VARIABLE VALUE, a line each

BR2_EXTERNAL_EDGEREPL_PATH = $(TREE)
DL_DIR = /dl
TARGET_DIR = /target
RUSTC_TARGET_NAME = device
# As support/misc/utils.mk has it.
qstrip = $(strip $(subst ",,$(1)))
UPPERCASE = $(shell echo '$(1)' | tr a-z- A-Z_)
pkgdir = $(dir $(lastword $(MAKEFILE_LIST)))
pkgname = $(lastword $(subst /, ,$(pkgdir)))
SAID = VERSION SITE SITE_METHOD SOURCE LICENSE LICENSE_FILES DEPENDENCIES

define stand-in
$(2)_PKGDIR = $(pkgdir)
$(2)_DL_DIR = $$(DL_DIR)/$(1)
$(2)_TARGET_RSYNC = $(1)-rsync
$(2)_HASH_FILES = $(1).hash
$(2)_OVERRIDE_SRCDIR = $(if $(filter local,$($(2)_SITE_METHOD)),$($(2)_SITE))
$(foreach variable,$(SAID),$(info $(1) $(variable) $($(2)_$(variable))))
endef

generic-package = $(call stand-in,$(pkgname),$(call UPPERCASE,$(pkgname)))
cargo-package = $(generic-package)
cmake-package = $(generic-package)

.PHONY: all
all: ;

include $(TREE)/external.mk
