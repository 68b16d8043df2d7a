#!/bin/sh
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Every machine of the lab has its own ssh host key, a journal that survives a power cut, and a unit that records when a
# shutdown begins.
set -eu
here=$(dirname "$0")
rm -f /etc/ssh/ssh_host_*
mkdir -p /root/.ssh
chmod 0700 /root/.ssh
cp "$here"/*.service /etc/systemd/system/
systemctl enable lab-host-key.service lab-witness.service
# Small sizes for a lab, and no consoles.
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=persistent\nSystemMaxUse=32M\n' >/etc/systemd/journald.conf.d/lab.conf
systemctl mask systemd-networkd-wait-online.service getty.target console-getty.service \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer
