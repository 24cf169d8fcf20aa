# pkg-config for the build.
