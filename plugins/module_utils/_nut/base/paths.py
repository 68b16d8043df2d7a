# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where our own programs and their files are on a host: paths below its root."""

from __future__ import annotations

NUT = "etc/nut"
UNITS = "etc/systemd/system"

HOTPLUG_PROGRAM = "usr/local/sbin/nut-hotplug"
HOTPLUG_POLICY = f"{NUT}/hotplug.json"
HOTPLUG_FOLDER = "var/lib/nut-hotplug"
HOTPLUG_STATE = f"{HOTPLUG_FOLDER}/state.json"  # what is remembered between runs
HOTPLUG_LOG = "var/log/nut/hotplug.log"

SHUTDOWN_PROGRAM = "usr/local/sbin/nut-shutdown"
SHUTDOWN_POLICY = f"{NUT}/shutdown.json"
SHUTDOWN_FOLDER = "var/lib/nut-shutdown"
SHUTDOWN_LOG = "var/log/nut/shutdown.log"
SHUTDOWN_RUN = "run/nut-shutdown"
GATE_STATE = f"{SHUTDOWN_RUN}/gate.json"
GATE_REPORT = f"{SHUTDOWN_FOLDER}/last.json"  # what the gate saw last
STAGES_STATE = f"{SHUTDOWN_FOLDER}/stages.json"
WATCH_STATE = f"{SHUTDOWN_FOLDER}/watch.json"
ADDRESSES = f"{SHUTDOWN_FOLDER}/addresses.json"  # of names, as they were found last
BOOT_STARTS = f"{SHUTDOWN_FOLDER}/boot-starts.json"  # of the guests that wait for their storage after a boot
RETURN_STATE = f"{SHUTDOWN_FOLDER}/return.json"  # which machines have come back after an outage
HA_MARKER = f"{SHUTDOWN_FOLDER}/ha-disarmed"  # exists while we have disarmed HA
GUESTS = f"{SHUTDOWN_FOLDER}/guests.json"  # of the stages, as they were found last

ACCESS_PROGRAM = "usr/local/sbin/nut-access"
ACCESS_TABLE = f"{NUT}/access.nft"

NOTIFY_PROGRAM = "usr/local/sbin/nut-notify"
NOTIFY_POLICY = f"{NUT}/notify.json"  # has secrets: for root alone
NOTIFY_FOLDER = "var/lib/nut-notify"
NOTIFY_INBOX = f"{NOTIFY_FOLDER}/new"  # a file for each event that nut-notify has not seen yet
NOTIFY_STATE = f"{NOTIFY_FOLDER}/outbox.json"  # the messages that are still to be sent
NOTIFY_SOCKET = "run/nut-notify.sock"  # the user nut may send upsmon's events there
EVENTS_LOG = "var/log/nut/events.jsonl"
