#!/bin/sh
# The data partition, in whichever fstab the init system brings.
set -eu

mkdir -p "$TARGET_DIR/data"
grep -q '[[:space:]]/data[[:space:]]' "$TARGET_DIR/etc/fstab" ||
	printf 'LABEL=data\t/data\text4\trw,noatime,nodev,nosuid,nofail\t0\t0\n' \
		>>"$TARGET_DIR/etc/fstab"
