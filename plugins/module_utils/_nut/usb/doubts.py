# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Explain to a person why a UPS may not be served, or not be what it seems: unsupported models, and keys that nearly match."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from ..conf.directives import Release
from ..conf.fit import unfit_key
from ..conf.release import format_release
from ..conf.ups_conf import Pair, Section, is_auto
from ..conf.usb_keys import ID_KEYS, correct_id
from .bus import HID_DRIVER, NOTHING, VENDOR, UsbDevice, UsbUps
from .fingerprint import (
    BLANKS,
    Fingerprint,
    compare_fingerprints,
    identifying_pairs,
    is_plain,
    lowered_keys,
    matches_device,
    trusted_serial,
)
from .pins import escape_pattern
from .sections import Sighting, describe_device, is_usb

# no driver takes these before the release, whatever ups.conf says (networkupstools/nut#2735)
_SINCE: Mapping[str, Release] = {"3746:ffff": (2, 8, 3)}
# how similar two texts are if one may be a misspelling of the other, from 0 to 1
_SIMILAR = 0.7


def explain_too_old(sighting: Sighting, release: Release) -> str:
    """Return why this release can't serve a UPS; "" if it can, or if a rule names a driver."""
    since = _SINCE.get(sighting.device.ids)
    if since is None or release >= since or (sighting.rule and sighting.rule.driver):
        return ""
    return f"NUT supports it since {format_release(since)}, but this host has {format_release(release)}. Upgrade NUT"


def _explain_unclaimed(device: UsbDevice, release: Release) -> str:
    """Return why usbhid-ups of this release does not take a UPS of a maker that it does not know, and what to do."""
    why = f"usbhid-ups of NUT {format_release(release)} does not know the maker of {describe_device(device)}, and takes it only"
    if unfit_key("", HID_DRIVER, "subdriver", release):
        return f"{why} with the key subdriver, which NUT has since 2.8.1. Upgrade NUT"
    return (
        f"{why} with the key subdriver. Set subdriver: Arduino for it (nut_server_devices, or options of a rule in nut_hotplug_rules), "
        "and check with upsc that OL, OB and the charge are right. Or upgrade NUT"
    )


def find_doubts(
    served: Mapping[str, tuple[Section, UsbUps]],
    *,
    asked: Iterable[Section],
    given: Mapping[str, Sighting],
    others: Iterable[Sighting],
    memory: Mapping[str, Fingerprint],
    release: Release,
) -> list[str]:
    """Return remarks on UPSes that this NUT may misread or not take, and on sections whose keys only nearly match a UPS.

    served: name -> the final section and its UPS. asked: the sections that a person wrote. given: name -> its UPS, as in served.
    others: UPSes without a name. memory: name -> the UPS that had it last.
    """
    remarks = []
    for name, (section, ups) in served.items():
        remarks.append(_explain_unlisted(section, ups, given[name], release))
        if "serial" in ups.device.unread and trusted_serial(ups.device):
            remarks.append(
                f"[{name}]: NUT {format_release(release)} can't read the serial number of {describe_device(ups.device)}, although the "
                "kernel can, so ups.conf names it by its ids, and by its port if there is another one like it"
            )
    wishes = {section.name: section for section in asked}
    taken = {
        given[name].device.incarnation for name, section in wishes.items() if name in given and _list_keys(section)
    }
    left = [sighting for sighting in (*given.values(), *others) if sighting.device.incarnation not in taken]
    for name, section in wishes.items():
        if name not in given and (is_usb(section) or is_auto(section)):
            remarks.append(_explain_nearest(section, left, memory.get(name), release))
    return [remark for remark in remarks if remark]


def _explain_unlisted(section: Section, ups: UsbUps, sighting: Sighting, release: Release) -> str:
    """Return a remark on a UPS whose model this NUT does not know; "" if it does."""
    if ups.driver != HID_DRIVER or ups.support not in (VENDOR, NOTHING):
        return ""
    device, keys, nut = ups.device, lowered_keys(section.keys), f"NUT {format_release(release)}"
    if "subdriver" in keys:
        how = "only because ups.conf names a subdriver"
    elif ups.support == NOTHING:
        return "" if sighting.is_proven else f"[{section.name}]: {_explain_unclaimed(device, release)}"
    elif "productid" in keys:
        how = "only because ups.conf names its productid"
    else:
        return (
            f"[{section.name}]: {nut} does not know the model {describe_device(device)}. Its driver takes it only with "
            f'productid: "{device.product_id}"'
        )
    return (
        f"[{section.name}]: {nut} does not know the model {describe_device(device)}, and serves it {how}. It may misread it, such as OB "
        "while on mains. Pull its plug once, and check with upsc that ups.status and battery.charge are right, or upgrade NUT"
    )


# Keys that nearly match


def _list_keys(section: Section) -> list[Pair]:
    """Return the pairs of a section that identify or locate a UPS, without bare flags."""
    return [pair for pair in identifying_pairs(section.keys) if pair[1] is not None]


def _explain_nearest(section: Section, left: Sequence[Sighting], before: Fingerprint | None, release: Release) -> str:
    """Return which UPS the keys of a section nearly match, and what differs; "" if there is none that may be meant.

    left: UPSes that no other section of a person names. before: the UPS that had the name last.
    """
    keys = _list_keys(section)
    # a UPS that had the name before is merely not plugged in, unless the keys have changed since
    possible = [sighting for sighting in left if before is None or compare_fingerprints(before, sighting.seen) == 3]
    is_only_one = before is not None or len(possible) == 1
    near = []
    for device in (sighting.device for sighting in possible):
        wrong = [pair for pair in keys if not _matches_pair(pair, device, release)]
        if wrong and (is_only_one or len(wrong) < len(keys) or all(_is_similar(pair, device) for pair in wrong)):
            near.append((device, wrong))
    if not near:
        return ""
    device, wrong = min(near, key=lambda entry: len(entry[1]))
    names = ", ".join(sorted(lowered_keys(keys)))
    return (
        f"[{section.name}]: no UPS on the bus has its {names}. The nearest is {describe_device(device)}: "
        f"{'; '.join(_describe_difference(pair, device) for pair in wrong)}. If it is meant, correct the device in "
        "nut_server_devices"
    )


def _matches_pair(pair: Pair, device: UsbDevice, release: Release) -> bool:
    return matches_device(Section("", (pair,)), device, release)


def _own_value(key: str, device: UsbDevice) -> str:
    values = {
        "vendorid": device.vendor_id,
        "productid": device.product_id,
        "vendor": device.manufacturer,
        "product": device.product,
        "serial": device.serial,
        "bus": f"{device.bus:03d}",
        "busport": f"{device.port:03d}",
        "device": f"{device.device:03d}",
    }
    return values[key].strip(BLANKS)


def _is_similar(pair: Pair, device: UsbDevice) -> bool:
    """Return whether the value of a key may be a misspelling of the device's own."""
    key, value = pair[0].lower(), (pair[1] or "").lower()
    own = _own_value(key, device).lower()
    if key in ID_KEYS and (correct_id(key, value) == own or sorted(value) == sorted(own)):
        return True
    return bool(own) and difflib.SequenceMatcher(None, own, value).ratio() >= _SIMILAR


def _describe_difference(pair: Pair, device: UsbDevice) -> str:
    key, value = pair[0].lower(), pair[1] or ""
    own = _own_value(key, device)
    if key in device.unread:
        return f"NUT can't read its {key}, so that key must go"
    if not own:
        return f"it reports no {key}, so that key must go"
    if own.lower() == value.lower() and is_plain(own):
        return f'its {key} has signs that mean something else in a regular expression, so write {key}: "{escape_pattern(own)}"'
    shown = own if is_plain(own) else "a text that ups.conf can't hold"
    hint = ""
    if key == "serial":
        hint = " (the sticker may show another number than the UPS reports)"
    return f"its {key} is {shown}, not {value}{hint}"
