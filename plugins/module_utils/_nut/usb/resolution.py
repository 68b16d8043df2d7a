# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of the UPSes of a host, what names.resolve_names() makes of that, and whether a change of it is one for a driver."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from ..conf.ups_conf import UpsConf
from .bus import UsbUps
from .fingerprint import Fingerprint, compare_fingerprints, matches_device
from .pins import only_adds_pins


@dataclass(frozen=True)
class KnownUpses:
    """What is known before the bus is looked at. Sections that a play takes away are not in conf."""

    wanted: UpsConf | None  # ups.conf as the inventory wants it; None if nobody said
    conf: UpsConf  # ups.conf as it is
    found: frozenset[str] = frozenset()  # names of found sections: ups_conf_text.found_sections()
    memory: Mapping[str, Fingerprint] = field(default_factory=dict)  # name -> the UPS that had it last
    # name -> ups_conf.render_sections() of the section as we wrote it last. A section that differs was edited by hand, and is left alone,
    # so what Resolution calls fixed must keep the entry that it has, or none.
    written: Mapping[str, str] = field(default_factory=dict)
    # Whether a play asks. Then wanted counts for fixed sections and for what stands before the sections, and nobody has edited
    # anything; else they stay as conf has them.
    play: bool = False


@dataclass(frozen=True)
class NameResolution:
    """Which UPS is which, and the ups.conf that follows."""

    conf: UpsConf
    found: frozenset[str]  # names of found sections in conf
    plugged: Mapping[str, UsbUps]  # name -> what is there under it, with the driver that it gets; fixed sections, too
    absent: tuple[str, ...]  # names of USB sections whose UPS is not there, in the order of the file
    memory: Mapping[str, Fingerprint]
    unserved: tuple[tuple[UsbUps, str], ...]  # UPSes without a name, with the reason
    remarks: tuple[str, ...]  # what can't be done, or is not as it seems, and the remedy
    fixed: frozenset[str] = frozenset()  # names of fixed sections


def only_adds_keys(name: str, known: KnownUpses, res: NameResolution) -> bool:
    """Return whether a section changes in nothing but by which keys its driver knows the UPS that it has already.

    Such a change is no reason to restart a driver that works.
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
    """Return whether each other UPS that a section means, too, is served: one that is not may be held by this one's driver."""
    was = known.conf.sections[name]
    others = [other for other in res.plugged if other != name and matches_device(was, res.plugged[other].device)]
    return all(other in work for other in others)
