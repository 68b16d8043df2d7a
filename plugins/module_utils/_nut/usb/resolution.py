# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The input and the result of names.resolve_names(), and whether a changed section requires a driver restart."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..conf.ups_conf import UpsConf, is_auto, render_sections
from .bus import UsbUps
from .fingerprint import Fingerprint, compare_fingerprints, identifying_pairs, make_fingerprint, matches_device
from .generic import is_generic
from .pins import only_adds_pins


@dataclass(frozen=True)
class KnownUpses:
    """What is known of a host's UPSes apart from the bus."""

    wanted: UpsConf | None  # ups.conf as the inventory wants it; None if unknown
    conf: UpsConf  # the current ups.conf, without sections that a play removes
    found: frozenset[str] = frozenset()  # names of found sections: ups_conf_text.found_sections()
    memory: Mapping[str, Fingerprint] = field(default_factory=dict)  # name -> the UPS that had it last
    # name -> ups_conf.render_sections() of the section as we last wrote it. A section that differs was edited by hand and is left
    # alone; so for fixed sections of a NameResolution, the caller must not change this entry.
    written: Mapping[str, str] = field(default_factory=dict)
    # name -> the text that was judged to be edited by hand. It stays so, even if we would write the same after another change.
    edited: Mapping[str, str] = field(default_factory=dict)
    # Whether a play asks. Then fixed sections and global settings come from wanted, and hand edits do not count; otherwise both
    # come from conf.
    play: bool = False
    proven: frozenset[str] = frozenset()  # doubtful UPSes whose drivers have had data: str(Fingerprint)


@dataclass(frozen=True)
class NameResolution:
    """Which UPS is which, and the ups.conf that follows."""

    conf: UpsConf
    found: frozenset[str]  # names of found sections in conf
    plugged: Mapping[str, UsbUps]  # name -> its UPS with its driver; including fixed sections
    absent: tuple[str, ...]  # names of USB sections whose UPS is not plugged in, in the order of the file
    memory: Mapping[str, Fingerprint]  # name -> the UPS that has it, or had it last
    unserved: tuple[tuple[UsbUps, str], ...]  # UPSes without a name, with the reason
    remarks: tuple[str, ...]  # problems, each with its remedy
    fixed: frozenset[str] = frozenset()  # names of fixed sections
    edited: frozenset[str] = frozenset()  # names of the fixed sections that were edited by hand


def find_edited(known: KnownUpses) -> frozenset[str]:
    """Return the names of our sections that differ from what we last wrote."""
    wanted = known.wanted.sections if known.wanted else {}
    return frozenset(
        name
        for name, section in known.conf.sections.items()
        if (name in wanted or name in known.found)
        and wanted.get(name) != section
        and known.written.get(name) not in (None, render_sections((section,)))
    )


def forget_adapters(known: KnownUpses, upses: Iterable[UsbUps], edited: Container[str]) -> KnownUpses:
    """Return what is known without our sections for adapters that are no UPS any more, and whose drivers never had data.

    An earlier release took them for UPSes. Their drivers would go on claiming the adapter. edited: sections edited by hand.
    """
    wanted = known.wanted.sections if known.wanted else {}
    seen = {make_fingerprint(ups.device) for ups in upses}
    gone = set()
    for name in {*known.conf.sections, *known.memory}:
        declared, section = wanted.get(name), known.conf.sections.get(name)
        ours = is_auto(declared) and not identifying_pairs(declared.keys) if declared else name in known.found
        if not ours or name in edited:
            continue
        last = known.memory.get(name)
        keys = {key.lower(): value or "" for key, value in section.keys} if section else {}
        ids = (last.vendor_id, last.product_id) if last else (keys.get("vendorid", ""), keys.get("productid", ""))
        here = last in seen if last else any((print_.vendor_id, print_.product_id) == ids for print_ in seen)
        if is_generic(*ids) and not here and str(last) not in known.proven:
            gone.add(name)
    if not gone:
        return known
    sections = {name: section for name, section in known.conf.sections.items() if name not in gone}
    memory = {name: print_ for name, print_ in known.memory.items() if name not in gone}
    return replace(known, conf=replace(known.conf, sections=sections), memory=memory, found=known.found - gone)


def only_adds_keys(name: str, known: KnownUpses, res: NameResolution) -> bool:
    """Return whether only the keys change by which a section's driver identifies the UPS that it already has.

    Such a change does not require a restart of a working driver.
    """
    was, will = known.conf.sections.get(name), res.conf.sections.get(name)
    if was is None or will is None or name not in res.plugged:
        return False
    before = known.memory.get(name)
    declared = known.wanted.sections.get(name) if known.wanted else None
    return only_adds_pins(was, will, declared, res.plugged[name].device) and (
        before is None or compare_fingerprints(before, res.memory[name]) > 0
    )


def are_others_served(name: str, known: KnownUpses, res: NameResolution, work: Container[str]) -> bool:
    """Return whether every other UPS that a section matches is served. One that is not may be held by this section's driver."""
    was = known.conf.sections[name]
    others = [other for other in res.plugged if other != name and matches_device(was, res.plugged[other].device)]
    return all(other in work for other in others)
