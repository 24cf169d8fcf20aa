#!/bin/sh
# The keyring that bundles are checked against: the product's, and no part of
# this tree.
set -eu

: "${EDGEREPL_RAUC_KEYS:?is not set: the folder with keyring.pem, cert.pem, key.pem}"
install -D -m 0644 "$EDGEREPL_RAUC_KEYS/keyring.pem" \
	"$TARGET_DIR/etc/rauc/keyring.pem"
