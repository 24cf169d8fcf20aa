# A group has no source of its own.
LICENSE ?= "MIT"
