#!/bin/sh
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Show the emulated USB bus to exactly the programs that use USB. Runs in the image of a host before NUT is installed.
#
# dpkg diverts each of these programs to $aside, now or when its package is installed, and a small script takes
# its place. The script starts the real program under umockdev's preload library. So it works for every caller: systemd,
# upsdrvctl, a person, or systemd-shutdown at the very end, without any environment.
#
# Needs libumockdev-preload.so.0 (package umockdev) and the directory /run/usb of the emulator. Running it again is harmless.
set -eu

aside=/usr/lib/lab-usb
bus=/run/usb/bus

# Where NUT's programs are, as the package nut-server spells it, because dpkg compares paths literally. A Debian that is not released
# has no VERSION_ID.
. /etc/os-release
drivers="usbhid-ups nutdrv_qx blazer_usb tripplite_usb riello_usb bcmxcp_usb richcomm_usb nutdrv_atcl_usb"
case ${VERSION_CODENAME:-} in
    bookworm) programs=/lib/nut scanner=/bin/nut-scanner ;;
    trixie) programs=/usr/lib/nut scanner=/usr/bin/nut-scanner ;;
    *)
        programs=/usr/libexec/nut scanner=/usr/bin/nut-scanner
        drivers="$drivers powervar_cx_usb"
        ;;
esac

mkdir -p "$aside" "$programs"

# "$0" is passed on, because NUT derives the driver's name, its pid file and its messages from it.
# The library names a listener's socket after its file descriptor, and two programs with the same number are in each
# other's way ("Failed to init libusb 1.0: Address already in use"). So each program begins at another number.
script() {
    cat <<EOF
#!/bin/bash
for ((fd = 3 + \$\$ % 100; fd > 2; fd--)); do
    [[ -e /proc/\$\$/fd/\$fd ]] || eval "exec \$fd</dev/null"
done
export LD_PRELOAD=libumockdev-preload.so.0 UMOCKDEV_DIR=$bus
exec $1
EOF
}
script "-a \"\$0\" \"$aside/\${0##*/}\" \"\$@\"" >"$aside/.wrapper"
chmod 755 "$aside/.wrapper"

divert() {
    dpkg-divert --local --rename --divert "$aside/${1##*/}" --add "$1" >/dev/null
    ln -sf "$aside/.wrapper" "$1"
}

for driver in $drivers; do
    divert "$programs/$driver"
done
divert "$scanner"
divert /usr/bin/lsusb

# lab-usb PROGRAM...: run any other program with the emulated bus as its /sys and /dev/bus/usb.
script '"$@"' >/usr/local/bin/lab-usb
chmod 755 /usr/local/bin/lab-usb

# The hardware does not go away when the host goes down: usbhid-ups -k comes last of all. A container that may mount would lose it
# (and /lab, where the host notes when it began to go down) with all other file systems.
for mount in run-usb lab; do
    mkdir -p "/etc/systemd/system/$mount.mount.d"
    printf '[Unit]\nDefaultDependencies=no\n' >"/etc/systemd/system/$mount.mount.d/stays.conf"
done

# A real driver has its device in /dev. This one speaks to the emulator by sockets in $bus, and makes one of its own there.
mkdir -p /etc/systemd/system/nut-driver@.service.d
printf '[Service]\nReadWritePaths=-/run/usb\n' >/etc/systemd/system/nut-driver@.service.d/lab-usb.conf
