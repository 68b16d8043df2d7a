#!/bin/sh
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Install the TrueNAS stand-in on a Debian 12 or 13 system with systemd. Run it as root inside the image or a container, at
# any time before or after its systemd starts; this directory must be readable there. Running it again is harmless.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
library=/usr/local/lib/truenas-lab

# TrueNAS 26 is based on Debian 13, with NUT 2.8.1; 25.04 and 25.10 on Debian 12, with NUT 2.8.0.
codename=$(sed -n "s/^VERSION_CODENAME=//p" /etc/os-release)
case $codename in
    bookworm) release=25.10 ;;
    trixie) release=26 ;;
    *) echo "install.sh: no TrueNAS is based on $codename" >&2; exit 1 ;;
esac

# NUT is part of TrueNAS, but no daemon runs until the service is started. Drivers and upsd are for mode MASTER.
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    nut-client nut-server openssl python3 python3-aiohttp sudo > /dev/null
for unit in nut-monitor.service nut-server.service nut-driver-enumerator.service nut-driver-enumerator.path \
    nut-driver.target nut.target; do
    systemctl disable --quiet "$unit"
    if [ -d /run/systemd/system ]; then
        systemctl stop "$unit"
    fi
done

install -d "${library}/truenas" /data /etc/lab
install -m 644 "${here}"/*.py "${library}/truenas/"
install -m 755 "${here}/files/export-pools" "${library}/"
install -m 755 "${here}/files/custom-upssched-cmd" /usr/local/bin/
install -m 755 "${here}/files/midclt" /usr/bin/
install -m 440 "${here}/files/sudoers" /etc/sudoers.d/truenas-lab
install -m 644 "${here}"/files/*.service /etc/systemd/system/
[ -e /etc/truenas-lab.json ] || echo "{\"release\": \"$release\"}" > /etc/truenas-lab.json
[ -e /etc/lab/shutdown-seconds ] || echo 20 > /etc/lab/shutdown-seconds

systemctl enable --quiet truenas-lab.service lab-export-pools.service
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl restart truenas-lab.service lab-export-pools.service
fi
