# As much of CMake's class as recipes lean on.
do_install() {
    :
}
