# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide which UPS on the bus gets which name, and what its section of ups.conf is. Pure: nothing is changed here.

There are three kinds of sections. The inventory declares a section with driver "auto", and we complete it. A found section is not
in the inventory: we made it for a UPS on the bus. All other sections are fixed and never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..conf import ups_conf
from ..conf.directives import Release
from ..conf.ups_conf import Pair, Section, UpsConf
from . import doubts, fingerprint
from .bus import GUESS, UsbUps, takes_ids
from .fingerprint import identifying_pairs, lowered_keys, matches_device
from .pins import find_own_pins
from .policy import UsbPolicy
from .presence import GRANT_NODE, explain_missing_node
from .resolution import KnownUpses, NameResolution, find_edited, forget_adapters
from .sections import SectionWriter, Sighting, describe_device, get_last_section, get_value, is_usb

# Most found sections: a device that changes its serial each time must not fill ups.conf.
FOUND_MOST = 128

# assumed if the release is unknown: the oldest that the collection supports
OLDEST: Release = (2, 8, 0)


def resolve_names(
    known: KnownUpses, upses: Sequence[UsbUps], policy: UsbPolicy, release: Release | None
) -> NameResolution:
    """Return which UPS has which name, and the ups.conf that follows.

    upses: from bus.find_upses(), with or without those that the policy ignores. release: of the host's NUT; None counts as the
    oldest. Idempotent: resolving its own result changes nothing.
    """
    suspects = frozenset() if known.play else find_edited(known)
    texts = {name: ups_conf.render_sections((known.conf.sections[name],)) for name in suspects}
    edited = frozenset(name for name in suspects if known.edited.get(name) == texts[name])
    while True:
        resolution = _Resolver(known, upses, policy, release, edited).resolve_all()
        # A run killed between writing ups.conf and its notes leaves sections that only look edited: we would write the same.
        sections = resolution.conf.sections
        different = {name for name in suspects - edited if sections.get(name) != known.conf.sections[name]}
        if not different:
            return replace(resolution, edited=edited)
        edited |= different


class _Resolver:
    """The state of one resolve_names() call."""

    def __init__(
        self,
        known: KnownUpses,
        upses: Sequence[UsbUps],
        policy: UsbPolicy,
        release: Release | None,
        edited: frozenset[str],
    ) -> None:
        self.known = known = forget_adapters(known, upses, edited)
        self.policy, self.release = policy, release or OLDEST
        self.devices = [ups.device for ups in upses]
        self.remarks: list[str] = []
        self.unserved: list[tuple[UsbUps, str]] = []
        self.refused: list[Sighting] = []
        self.given: dict[str, Sighting] = {}  # name -> its UPS
        self.drivers: dict[str, str] = {}  # name -> the driver of its UPS
        self.fixed: dict[str, Section] = {}
        self.declared: dict[str, Section] = {}
        self.found: list[str] = []  # names of found sections
        self._sort_sections(edited)
        self.unnamed = [
            Sighting(ups, policy.rule_for(ups.device), seen, str(seen) in known.proven)
            for ups in upses
            for seen in (fingerprint.make_fingerprint(ups.device),)
        ]
        self.ignored = [sighting for sighting in self.unnamed if sighting.rule and sighting.rule.ignore]
        self.unnamed = [sighting for sighting in self.unnamed if sighting not in self.ignored]
        self.reserved = {rule.name.lower() for rule in policy.rules if rule.name}

    def _sort_sections(self, edited: frozenset[str]) -> None:
        """Sort the sections into declared, found and fixed."""
        wanted = self.known.wanted.sections if self.known.wanted else {}
        conf = self.known.conf.sections
        spelled = {name.lower() for name in wanted}
        for name in sorted(edited):
            remedy = "Run the playbook to restore it" if name in wanted else "Delete it to have it recreated"
            self.remarks.append(f"[{name}] in ups.conf was edited by hand and is left alone. {remedy}")
        for name, section in wanted.items():
            if name in edited:
                self.fixed[name] = conf[name]
            elif ups_conf.is_auto(section):
                self.declared[name] = section
            else:
                # the file lacks what this NUT release does not know, and may have been edited by hand
                self.fixed[name] = section if self.known.play else conf.get(name, section)
        for name, section in conf.items():
            if name in wanted:
                continue
            if name not in self.known.found or name in edited:
                self.fixed[name] = section
                if wanted and name not in edited:
                    self.remarks.append(
                        f"[{name}] in ups.conf is not in the inventory, so it was added by hand. Declare it, or the next run of the "
                        "playbook removes it"
                    )
            elif name.lower() in spelled:
                self.remarks.append(f"[{name}] was removed from ups.conf: the inventory spells that name differently")
            else:
                self.found.append(name)

    @property
    def our_names(self) -> list[str]:
        return [*self.declared, *self.found]

    @property
    def free_names(self) -> list[str]:
        return [name for name in self.our_names if name not in self.given]

    def resolve_all(self) -> NameResolution:
        self._give_to_fixed()
        self._refuse_too_new()
        self._give_by_rule()
        ruled = frozenset(self.given)
        self._give_back()
        self._drop_ghosts()  # first, since a ghost would make the next step ambiguous
        self._give_to_moved()
        self._drop_ghosts()
        self._refuse_unusable()
        self._hand_over()
        self._rename_found(ruled)
        self._name_unknown()
        conf = self._in_order(self._write_sections())
        remembered = {name: print_ for name, print_ in self.known.memory.items() if name in conf}
        remembered.update({name: sighting.seen for name, sighting in self.given.items()})
        usb = [name for name, section in conf.items() if name not in self.fixed or is_usb(section)]
        wanted = self.known.wanted.sections if self.known.wanted else {}
        # as for fixed sections; a ups.conf without sections was not written yet
        asked = self.known.play or not self.known.conf.sections
        settings = (self.known.wanted if asked and self.known.wanted else self.known.conf).settings
        return NameResolution(
            conf=UpsConf(settings, conf),
            found=frozenset(self.found) | (self.known.found & self.fixed.keys() - wanted.keys()),
            plugged={name: self._describe_served(name) for name in conf if name in self.given},
            absent=tuple(name for name in usb if name not in self.given),
            memory={name: remembered[name] for name in conf if name in remembered},
            unserved=tuple(self.unserved),
            remarks=tuple(dict.fromkeys(self.remarks)),
            fixed=frozenset(self.fixed),
        )

    def _write_sections(self) -> dict[str, Section]:
        writer = SectionWriter(
            conf=self.known.conf.sections,
            declared=self.declared,
            memory=self.known.memory,
            given=self.given,
            drivers=self.drivers,
            devices=self.devices,
            policy=self.policy,
            release=self.release,
            remarks=self.remarks,
        )
        sections = {name: writer.write_present(name) for name in self.given if name not in self.fixed}
        sections.update({name: writer.write_absent(name) for name in self.free_names})
        writer.check_fixed(self.fixed.values())
        named = {name: section for name, section in sections.items() if name in self.given} | self.fixed
        self.remarks += doubts.find_doubts(
            {name: (section, self._describe_served(name)) for name, section in named.items() if name in self.given},
            asked=[*self.fixed.values(), *self.declared.values()],
            given=self.given,
            others=[*self.unnamed, *self.refused],
            memory=self.known.memory,
            release=self.release,
        )
        return {**sections, **self.fixed}

    def _describe_served(self, name: str) -> UsbUps:
        sighting = self.given[name]
        by_rule = sighting.rule and sighting.rule.driver and name not in self.fixed
        return replace(sighting.ups, driver=self.drivers[name], why=str(sighting.rule) if by_rule else sighting.ups.why)

    def _in_order(self, sections: Mapping[str, Section]) -> dict[str, Section]:
        """Return sections in the file's order. New ones of the inventory follow their predecessor there."""
        names = [name for name in self.known.conf.sections if name in sections]
        place = 0
        for name in self.known.wanted.sections if self.known.wanted else ():
            if name in names:
                place = names.index(name) + 1
            else:
                names.insert(place, name)
                place += 1
        return {name: sections[name] for name in dict.fromkeys([*names, *sections])}

    # Giving names

    def _give_name(self, name: str, sighting: Sighting, driver: str) -> None:
        self.given[name] = sighting
        self.drivers[name] = driver
        self.unnamed.remove(sighting)
        if name not in self.fixed and name not in self.declared and name not in self.found:
            self.found.append(name)

    def _refuse_ups(self, sighting: Sighting, why: str) -> None:
        self.unserved.append((sighting.ups, why))
        self.refused.append(sighting)
        self.unnamed.remove(sighting)

    def _compare_to_memory(self, name: str, sighting: Sighting) -> int:
        memory = self.known.memory.get(name)
        return fingerprint.compare_fingerprints(memory, sighting.seen) if memory else 0

    def _has_stayed(self, name: str, sighting: Sighting) -> bool:
        memory = self.known.memory.get(name)
        return memory is not None and memory.place == sighting.seen.place

    def _give_to_fixed(self) -> None:
        """Give each fixed section a UPS that its driver takes, the most specific sections first."""
        usb = [section for section in self.fixed.values() if is_usb(section)]
        for section in sorted(usb, key=lambda section: -len(identifying_pairs(section.keys))):
            driver = get_value(section, "driver")
            specific = bool(identifying_pairs(section.keys))
            takes = [
                sighting
                for sighting in self.unnamed
                if matches_device(section, sighting.device)
                and (specific or (sighting.driver and takes_ids(driver, sighting.device.ids, sighting.driver)))
            ]
            if takes:
                best = min(takes, key=lambda sighting: self._rank_for_fixed(section.name, driver, sighting))
                self._give_name(section.name, best, driver)

    def _rank_for_fixed(self, name: str, driver: str, sighting: Sighting) -> tuple[int, bool, bool]:
        """Rank UPSes for a fixed section: the one that it had first, those of other sections and those without a node last."""
        rank = 3 - self._compare_to_memory(name, sighting)
        if rank == 3:
            rank = 3 if any(self._compare_to_memory(other, sighting) == 3 for other in self.our_names) else 2
        return rank, not sighting.device.has_node, sighting.driver != driver

    def _refuse_too_new(self) -> None:
        for sighting in tuple(self.unnamed):
            if why := doubts.explain_too_old(sighting, self.release):
                self._refuse_ups(sighting, why)

    def _refuse_unusable(self) -> None:
        """Refuse UPSes that no driver can open, unless the inventory's keys name them. A container sees all UPSes of its host."""
        asked = [name for name, section in self.declared.items() if identifying_pairs(section.keys)]
        for sighting in tuple(self.unnamed):
            why = explain_missing_node([sighting.device])
            if why and not any(name not in self.given and self._is_allowed(name, sighting) for name in asked):
                self._refuse_ups(sighting, f"{why}. To do: {GRANT_NODE}. A UPS of another machine can stay as it is")

    def _is_allowed(self, name: str, sighting: Sighting) -> bool:
        """Return whether the keys that the inventory declares for a name match this UPS."""
        declared = self.declared.get(name)
        return (
            declared is None
            or not identifying_pairs(declared.keys)
            or matches_device(Section(name, identifying_pairs(declared.keys)), sighting.device)
        )

    def _driver_for(self, name: str, sighting: Sighting) -> str:
        """Return the driver of a UPS under a name; "" if unknown."""
        if sighting.rule and sighting.rule.driver:
            return sighting.rule.driver
        # While a driver uses a UPS, the kernel can't identify it, and nut-scanner does not run each time.
        if not sighting.ups.driver or sighting.ups.why == GUESS:
            last = self._get_last_section(name)
            if last and self._is_same_model(last, sighting):
                return get_value(last, "driver")
        return sighting.driver

    def _get_last_section(self, name: str) -> Section | None:
        old, memory = self.known.conf.sections.get(name), self.known.memory.get(name)
        return get_last_section(name, old, memory, self.policy)

    def _is_same_model(self, last: Section, sighting: Sighting) -> bool:
        """Return whether a name's last section is for this model. Memory alone may be ahead of ups.conf, which may have to wait."""
        # ids that the rule's options set need not be those of the device
        options = lowered_keys(sighting.rule.options) if sighting.rule else frozenset()
        own = find_own_pins(last, self.declared.get(last.name))
        pins = tuple(pair for pair in own if pair[0].lower() not in options)
        if lowered_keys(pins) & {"vendorid", "productid"}:
            model = Section(last.name, pins)
            return fingerprint.matches_model(model, sighting.device.vendor_id, sighting.device.product_id)
        return self._compare_to_memory(last.name, sighting) > 0

    def _own_pins(self, name: str) -> tuple[Pair, ...]:
        return find_own_pins(self.known.conf.sections.get(name), self.declared.get(name))

    def _give_by_rule(self) -> None:
        """Give the names that rules of the policy set."""
        wishes: dict[str, list[Sighting]] = {}
        spelled = {name.lower(): name for name in (*self.fixed, *self.our_names)}
        for sighting in self.unnamed:
            if sighting.rule and sighting.rule.name:
                wishes.setdefault(spelled.get(sighting.rule.name.lower(), sighting.rule.name), []).append(sighting)
        for name, wishers in wishes.items():
            able = [sighting for sighting in wishers if self._can_have(name, sighting)]
            able.sort(
                key=lambda sighting: (-self._compare_to_memory(name, sighting), not self._has_stayed(name, sighting))
            )
            for sighting in able[1:]:
                self.remarks.append(
                    f"{describe_device(sighting.device)}: {sighting.rule} names it {name}, which "
                    f"{describe_device(able[0].device)} already has. Distinguish them by serial or port in the rules"
                )
            if able:
                self._give_name(name, able[0], self._driver_for(name, able[0]))

    def _can_have(self, name: str, sighting: Sighting) -> bool:
        """Return whether a UPS can have the name that its rule sets; remark on it if not."""
        why = ""
        if name in self.fixed:
            why = f"[{name}] sets its own driver. Set its driver to auto, or choose another name in the rule"
        elif not self._is_allowed(name, sighting):
            keys = sorted(lowered_keys(identifying_pairs(self.declared[name].keys)))
            why = f"[{name}] is declared with a different {', '.join(keys)}"
        elif not self._driver_for(name, sighting):
            return False  # _name_unknown() reports it
        if why:
            self.remarks.append(f"{describe_device(sighting.device)}: {sighting.rule} names it {name}, but {why}")
        return not why

    def _rename_found(self, ruled: frozenset[str]) -> None:
        """Give a newly declared name the UPS of a found name, unless a rule set that; drop the found name.

        Only if it is clear which UPS is meant: by the declared keys, or because there is only one.
        """
        for name in [name for name in self.free_names if name in self.declared and self._is_new(name)]:
            held = [
                other
                for other in self.found
                if other in self.given
                and other not in ruled
                and self._is_allowed(name, self.given[other])
                and not self._is_held_off(name, self.given[other])
            ]
            clear = bool(identifying_pairs(self.declared[name].keys)) and not any(
                self._is_allowed(name, sighting) for sighting in self.unnamed
            )
            if held and (clear or (len(held) == 1 and not self.unnamed)):
                sighting, driver = self.given.pop(held[0]), self.drivers.pop(held[0])
                self.found.remove(held[0])
                self.unnamed.append(sighting)
                self._give_name(name, sighting, driver)

    def _is_new(self, name: str) -> bool:
        """Return whether a name has never had a UPS."""
        return name not in self.known.memory and not self._own_pins(name)

    def _has_held(self, name: str, sighting: Sighting) -> bool:
        """Return whether a name belonged to this UPS, according to the memory or else to its section."""
        if name in self.known.memory:
            return self._compare_to_memory(name, sighting) == 3
        return bool(self._own_pins(name)) and matches_device(self.known.conf.sections[name], sighting.device)

    def _drop_ghosts(self) -> None:
        """Drop found names whose UPS has another name now, or is ignored by the policy."""
        for name in [name for name in self.free_names if name in self.found]:
            if any(self._has_held(name, sighting) for sighting in (*self.given.values(), *self.ignored)):
                self.found.remove(name)

    def _give_back(self) -> None:
        """Give each name back to the UPS that had it."""
        for stayed in (True, False):
            for name in self.free_names:
                same = [sighting for sighting in self.unnamed if self._compare_to_memory(name, sighting) == 3]
                self._give_first(
                    name, [sighting for sighting in same if not stayed or self._has_stayed(name, sighting)]
                )
        # without memory, the section itself identifies its UPS
        forgotten = [name for name in self.free_names if name not in self.known.memory and self._own_pins(name)]
        for name in sorted(forgotten, key=lambda name: -len(self._own_pins(name))):
            self._give_first(
                name,
                [
                    sighting
                    for sighting in self.unnamed
                    if matches_device(self.known.conf.sections[name], sighting.device)
                ],
            )

    def _give_to_moved(self) -> None:
        """Give a name to a UPS of its model without a serial at another port, if only that UPS can be meant."""
        alike = {
            name: [sighting for sighting in self.unnamed if self._compare_to_memory(name, sighting) == 2]
            for name in self.free_names
        }
        for name, candidates in alike.items():
            if len(candidates) == 1 and sum(candidates[0] in others for others in alike.values()) == 1:
                self._give_first(name, candidates)

    def _give_first(self, name: str, candidates: Sequence[Sighting]) -> None:
        """Give a name to the first candidate that it is allowed for, unless its driver is unknown."""
        sighting = next((sighting for sighting in candidates if self._is_allowed(name, sighting)), None)
        if sighting is None:
            return
        driver = self._driver_for(name, sighting)
        if driver:
            self._give_name(name, sighting, driver)

    def _hand_over(self) -> None:
        """Give the remaining UPSes the names of absent ones."""
        for sighting in tuple(self.unnamed):
            names = [
                name for name in self.free_names if self._is_vacant(name, sighting) and self._driver_for(name, sighting)
            ]
            if names:
                name = min(names, key=lambda name: self._rank_free_name(name, sighting))
                self._give_name(name, sighting, self._driver_for(name, sighting))

    def _is_held_off(self, name: str, sighting: Sighting) -> bool:
        """Return whether its driver may never have data from this UPS, and nobody says that this name is for it."""
        given = lowered_keys(self.declared[name].keys) if name in self.declared else frozenset()
        return sighting.is_unproven and not given & {*fingerprint.KEYS, "subdriver"}

    def _is_vacant(self, name: str, sighting: Sighting) -> bool:
        if not self._is_allowed(name, sighting) or self._is_held_off(name, sighting) or name.lower() in self.reserved:
            return False
        return self.policy.takeover or (name in self.declared and self._is_new(name))

    def _rank_free_name(self, name: str, sighting: Sighting) -> tuple[int, bool, int]:
        """Rank names: those declared for such a UPS first, then those of its model, then in the order of the file."""
        memory = self.known.memory.get(name)
        model = memory is not None and (memory.vendor_id, memory.product_id) == (
            sighting.seen.vendor_id,
            sighting.seen.product_id,
        )
        declared = self.declared.get(name)
        return (-len(identifying_pairs(declared.keys)) if declared else 0, not model, self.our_names.index(name))

    def _name_unknown(self) -> None:
        """Give new names to the remaining UPSes, or refuse them."""
        taken = {name.lower() for name in (*self.fixed, *self.our_names)} | self.reserved
        for sighting in [sighting for sighting in self.unnamed if sighting.driver]:
            if len(self.found) >= FOUND_MOST:
                self._refuse_ups(
                    sighting,
                    f"this host already has the limit of {FOUND_MOST} found UPSes. Declare it, or run the playbook to remove old ones",
                )
            elif not self.policy.default_name:
                self._refuse_ups(sighting, "the policy leaves undeclared UPSes alone. Declare it, or name it in a rule")
            else:
                number = 1
                while (name := f"{self.policy.default_name}{number if number > 1 else ''}").lower() in taken:
                    number += 1
                taken.add(name.lower())
                self._give_name(name, sighting, sighting.driver)
        self._give_to_moved()  # again: with the others named, only one UPS may be meant now
        for sighting in tuple(self.unnamed):
            why = "no driver is known for it. Set one in a rule of the policy, or ignore the device there"
            self._refuse_ups(sighting, why)
