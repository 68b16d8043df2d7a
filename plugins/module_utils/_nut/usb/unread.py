# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Texts of a UPS that the kernel reads and the host's NUT does not.

NUT's drivers ask the device once more, through libusb. If its table of languages is damaged (Eaton 9E with NUT 2.8.0 to 2.8.2), or its
firmware does not answer each time, they get nothing, and a key such as serial never matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..conf.directives import Release
from ..conf.release import format_release
from .bus import TEXT_KEYS, UsbDevice
from .fingerprint import BLANKS, is_plain, make_fingerprint

NOTES_MOST = 256


def find_unread(device: UsbDevice, lines: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Return the keys for the texts of a device that nut-scanner lists without them, because this NUT can't read them.

    lines: from bus.read_scanner(). They prove nothing about a device that nut-scanner does not list. Only texts that can be pinned
    matter.
    """
    known = lines.get(device.ids, ())
    texts = zip(TEXT_KEYS, (device.manufacturer, device.product, device.serial))
    return frozenset(
        key
        for key, text in ((key, text.strip(BLANKS)) for key, text in texts)
        if known and is_plain(text) and not _is_listed(key, text, known)
    )


def _is_listed(key: str, text: str, lines: Iterable[str]) -> bool:
    pattern = re.compile(f',{key}="[{BLANKS}]*{re.escape(text)}[{BLANKS}]*"')
    return any(pattern.search(line) for line in lines)


def write_notes(device: UsbDevice, keys: Iterable[str], release: Release) -> tuple[str, ...]:
    """Return notes that this release can't read these texts of a device, for read_notes()."""
    return tuple(f"{format_release(release)} {key} {make_fingerprint(device)}" for key in sorted(keys))


def read_notes(device: UsbDevice, notes: Iterable[str], release: Release) -> UsbDevice:
    """Return the device with the texts marked that this release can't read, according to the notes."""
    known = frozenset(notes)
    unread = frozenset(key for key in TEXT_KEYS if known.issuperset(write_notes(device, (key,), release)))
    return replace(device, unread=unread) if unread != device.unread else device


def keep_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Return the notes without duplicates, the oldest dropped."""
    return tuple(dict.fromkeys(notes))[-NOTES_MOST:]
