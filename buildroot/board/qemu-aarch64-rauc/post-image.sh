#!/bin/sh
# An update of the image, signed for RAUC. The keys are the product's, and no
# part of this tree.
set -eu

: "${EDGEREPL_RAUC_KEYS:?is not set: the folder with keyring.pem, cert.pem, key.pem}"
bundle="$BUILD_DIR/edgerepl-bundle"
rm -rf "$bundle" "$BINARIES_DIR/update.raucb"
mkdir -p "$bundle"
ln -L "$BINARIES_DIR/rootfs.ext4" "$bundle/rootfs.ext4"
# It says which image this is, also to edgerepl boot-check.
# shellcheck disable=SC1091 # there is one once the image is made
. "$TARGET_DIR/usr/lib/os-release"
cat >"$bundle/manifest.raucm" <<END
[update]
compatible=$(sed -n 's/^compatible=//p' "$TARGET_DIR/etc/rauc/system.conf")
version=$VERSION_ID

[bundle]
format=verity

[image.rootfs]
filename=rootfs.ext4
END
"$HOST_DIR/bin/rauc" bundle --cert="$EDGEREPL_RAUC_KEYS/cert.pem" \
	--key="$EDGEREPL_RAUC_KEYS/key.pem" --keyring="$EDGEREPL_RAUC_KEYS/keyring.pem" \
	"$bundle" "$BINARIES_DIR/update.raucb"
