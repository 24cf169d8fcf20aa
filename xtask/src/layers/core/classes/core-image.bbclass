# An image has no source.
CORE_IMAGE_EXTRA_INSTALL ?= ""
