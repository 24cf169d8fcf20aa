#!/bin/sh
# Installs edgerepl below DESTDIR: the one list of what goes where, with which mode, that every
# packager follows. Makes no user, enables nothing, and never writes outside DESTDIR.
#
#   DESTDIR=staging BINARY=target/release/edgerepl dist/install.sh image
#   DESTDIR=staging BINARY=target/release/edgerepl dist/install.sh package
#
# image    for firmware with a read-only root: the device's layer of the configuration is a link to
#          the data partition, and Litestream's unit and configuration are installed.
# package  for a distribution where root can be written, and where Litestream's own package brings
#          these two: they become examples.
#
# BINARY is left out where the build system installs the program by itself. The folders may be
# changed by the variables below.
set -eu

: "${DESTDIR:?is not set: the folder to install into}"
: "${BINARY:=}"
: "${UNITDIR:=/usr/lib/systemd/system}"
: "${PRESETDIR:=/usr/lib/systemd/system-preset}"
: "${SYSUSERSDIR:=/usr/lib/sysusers.d}"
: "${TMPFILESDIR:=/usr/lib/tmpfiles.d}"
: "${MANDIR:=/usr/share/man}"
: "${BASHDIR:=/usr/share/bash-completion/completions}"
: "${ZSHDIR:=/usr/share/zsh/site-functions}"
: "${FISHDIR:=/usr/share/fish/vendor_completions.d}"
SHAREDIR=/usr/share/edgerepl
CONFIG=/etc/edgerepl/edgerepl.toml

here=$(cd "$(dirname "$0")" && pwd)

put() { # MODE PATH SOURCE
    install -D -m "$1" "$3" "$DESTDIR$2"
}

folder() { # PATH
    install -d -m 0755 "$DESTDIR$1"
}

case "${1:-}" in
image | package) kind=$1 ;;
*)
    echo "usage: DESTDIR=FOLDER [BINARY=PROGRAM] $0 image|package" >&2
    exit 64
    ;;
esac

if [ -n "$BINARY" ]; then
    put 0755 /usr/bin/edgerepl "$BINARY"
fi
for unit in edgerepl.service edgerepl-restore.service edgerepl-boot-check.service \
    edgerepl-litestream.path edgerepl-litestream.service; do
    put 0644 "$UNITDIR/$unit" "$here/$unit"
done
put 0644 "$PRESETDIR/99-edgerepl.preset" "$here/system-preset/99-edgerepl.preset"
put 0644 "$SYSUSERSDIR/edgerepl.conf" "$here/sysusers.d/edgerepl.conf"
put 0644 "$TMPFILESDIR/edgerepl.conf" "$here/tmpfiles.d/edgerepl.conf"
put 0644 "$SHAREDIR/aws-iot-ca.pem" "$here/aws-iot-ca.pem"
put 0644 "$SHAREDIR/drop-ins/i2c.conf" "$here/drop-ins/i2c.conf"
put 0644 "$CONFIG" "$here/edgerepl.toml"
for page in "$here"/man/*.[0-9]; do
    put 0644 "$MANDIR/man${page##*.}/${page##*/}" "$page"
done
put 0644 "$BASHDIR/edgerepl" "$here/completions/edgerepl.bash"
put 0644 "$ZSHDIR/_edgerepl" "$here/completions/_edgerepl"
put 0644 "$FISHDIR/edgerepl.fish" "$here/completions/edgerepl.fish"
# The image's own layer, for whoever builds it to fill.
folder /usr/lib/edgerepl

case $kind in
image)
    put 0644 "$UNITDIR/litestream.service" "$here/litestream.service"
    put 0644 /etc/litestream.yml "$here/litestream.yml"
    ln -sfn /data/edgerepl/edgerepl.toml.d "$DESTDIR$CONFIG.d"
    ;;
package)
    put 0644 "$SHAREDIR/litestream.service" "$here/litestream.service"
    put 0644 "$SHAREDIR/litestream.yml" "$here/litestream.yml"
    folder "$CONFIG.d"
    ;;
esac
