#!/bin/sh
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What an installer would have asked for, and what makes an emulated processor bearable. $1 is the machine's root.
set -eu
root=$1

echo lab-vm >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 lab-vm\n' >"$root/etc/hosts"
echo '/dev/vda / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"
# Fixed: a cold boot is not a first boot, which would set presets and so start what its owner has disabled.
echo 6c61622d766d2d6c61622d766d2d6c61 >"$root/etc/machine-id"

# QEMU's own network: nobody answers there, but the forwarded port of ssh leads here.
cat >"$root/etc/network/interfaces" <<'END'
auto lo
iface lo inet loopback

auto eth0
iface eth0 inet static
    address 10.0.2.15/24
END

# The key comes with each start from outside, so that an image can be kept and shared, and still opens to one lab only.
cat >"$root/etc/ssh/sshd_config.d/lab.conf" <<'END'
PermitRootLogin prohibit-password
PasswordAuthentication no
AuthorizedKeysCommand /bin/cat /sys/firmware/qemu_fw_cfg/by_name/opt/lab/authorized_keys/raw
AuthorizedKeysCommandUser root
END

# Work that begins by itself at odd hours would be most of what this machine can do.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-timesyncd.service systemd-pcrphase.service getty@tty1.service serial-getty@ttyS0.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
printf 'blacklist %s\n' psmouse pcspkr snd_pcsp serio_raw evdev >"$root/etc/modprobe.d/lab.conf"

cp "$root"/boot/vmlinuz-* "$root/vmlinuz.lab"
cp "$root"/boot/initrd.img-* "$root/initrd.lab"
chroot "$root" dpkg-query --show >"$root/packages.lab"
