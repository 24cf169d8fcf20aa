# As much of cargo's class as recipes lean on.
B = "${WORKDIR}/build"
CARGO_BUILD_FLAGS = "-v --frozen"
CARGO_TARGET_SUBDIR ?= "device/release"
RUSTFLAGS ??= ""
do_configure() {
    :
}
do_compile() {
    :
}
