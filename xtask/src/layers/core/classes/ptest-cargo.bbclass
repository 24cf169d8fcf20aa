# Unit tests on the device.
PTEST_PATH ?= "${libdir}/${BPN}/ptest"
inherit cargo
