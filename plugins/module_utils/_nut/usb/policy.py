# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What shall become of the UPSes that are found on the bus: the policy, a JSON file, checked before use."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.check import Check, member_path, read_json
from ..conf import ups_conf

if TYPE_CHECKING:
    from .bus import UsbDevice

# Entries of a list, characters of a pattern: nobody needs more, and no run shall take for ever.
ENTRIES_LIMIT = 1000
GLOB_LIMIT = 256
# with the digits of NAME2 it still is a unit's name
NAME_LIMIT = 64
_NUMBER_LIMIT = 10**15

# Drivers that serve nothing on the bus, and the word that leaves the choice to us
NO_USB = (
    "auto",
    "dummy-ups",
    "snmp-ups",
    "netxml-ups",
    "clone",
    "clone-outlet",
    "apcupsd-ups",
    "failover",
    "nut-ipmipsu",
)

_IDS = re.compile(r"[0-9a-fA-F]{4}:(?:[0-9a-fA-F]{4}|\*)")
_ID = re.compile(r"[0-9a-fA-F]{4}")
# A slip in VID:PID would be a glob that never matches; one of stars alone would take each keyboard for a UPS
_NEARLY_IDS = re.compile(r"[0-9a-fA-FxX*?]+:[0-9a-fA-FxX*?]*")
_STARS = re.compile(r"[*?]+")
_NEARLY_ID = re.compile(r"0[xX][0-9a-fA-F]*")
# of what no device and no file says: control characters, and halves of a character
_UNWRITTEN = re.compile("[\u0000-\u001f\u007f\ud800-\udfff]")
_OWN = ("driver", "port", "desc", "name")
_TEXTS = ("vendorid", "productid", "serial")

_MATCHERS = ("vendor", "product", "serial", "port")
RULE_KEYS = (*_MATCHERS, "ignore", "name", "driver", "options")
KEYS = ("version", "sysfs", "dev", "default_name", "takeover", "absent", "patterns", "rules", "debug")
ABSENT = ("keep", "dummy")


class UsbPolicyError(ValueError):
    """A policy can't be used; the message lists all that is wrong with it, a line each, with its JSON path."""


def _matches_glob(pattern: str, *texts: str) -> bool:
    """Match a shell's pattern with texts, in any case; what a device says may have blanks at its ends that nobody sees."""
    try:
        # Python's own pattern for it does not go back over what a star took, so the cost is bounded by the lengths
        return any(
            fnmatch.fnmatchcase(text, pattern.lower())
            for shown in texts
            for text in (shown.lower(), shown.strip().lower())
        )
    except re.error:  # a range such as [z-a], to older Pythons
        return False


def _id_or_glob(pattern: str, number: str, text: str) -> bool:
    return pattern.lower() == number if _ID.fullmatch(pattern) else _matches_glob(pattern, text)


@dataclass(frozen=True)
class DeviceRule:
    """What is done with the devices that all its patterns match.

    number: its place in the file, from 1. vendor, product: four hexadecimal digits, or a glob on the device's text; serial: a
    glob; port: a glob on the device's name in sysfs, or on its place. "" is not given. options: keys for the section.
    """

    number: int
    vendor: str = ""
    product: str = ""
    serial: str = ""
    port: str = ""
    ignore: bool = False
    name: str = ""
    driver: str = ""
    options: tuple[ups_conf.Pair, ...] = ()

    def matches_device(self, device: UsbDevice) -> bool:
        """Say whether all that the rule asks for is true of the device."""
        return (
            (not self.vendor or _id_or_glob(self.vendor, device.vendor_id, device.manufacturer))
            and (not self.product or _id_or_glob(self.product, device.product_id, device.product))
            and (not self.serial or _matches_glob(self.serial, device.serial))
            and (not self.port or _matches_glob(self.port, device.name, device.place))
        )

    def __str__(self) -> str:
        """Name it in a sentence."""
        return f"rule {self.number}"


@dataclass(frozen=True)
class UsbPolicy:
    """The policy of a host. sysfs, dev: where to look. default_name: what an undeclared UPS is called; "" leaves it alone."""

    sysfs: str = "/sys"
    dev: str = "/dev"
    default_name: str = "ups"
    takeover: bool = True
    absent: str = "keep"
    patterns: tuple[str, ...] = ()
    rules: tuple[DeviceRule, ...] = ()
    debug: bool = False

    def rule_for(self, device: UsbDevice) -> DeviceRule | None:
        """Return the first rule that matches."""
        return next((rule for rule in self.rules if rule.matches_device(device)), None)

    def is_ignored(self, device: UsbDevice) -> bool:
        """Say whether the device is to be left alone, whatever it is."""
        rule = self.rule_for(device)
        return rule is not None and rule.ignore

    def explain_match(self, device: UsbDevice) -> str:
        """Say why the policy takes a device for a UPS: "rule 2", "pattern 3746:ffff"; "" if it does not."""
        rule = self.rule_for(device)
        if rule:
            return "" if rule.ignore else str(rule)
        return next((f"pattern {pattern}" for pattern in self.patterns if _matches_pattern(pattern, device)), "")


def _matches_pattern(pattern: str, device: UsbDevice) -> bool:
    if _IDS.fullmatch(pattern):
        vendor, product = pattern.lower().split(":")
        return vendor == device.vendor_id and product in ("*", device.product_id)
    return _matches_glob(pattern, device.manufacturer, device.product)


# Reading


def parse_policy(text: str | bytes) -> UsbPolicy:
    """Return the policy that the text of its file holds. Raises PolicyError."""
    return check_policy(read_json(text, UsbPolicyError))


def read_policy(path: Path) -> UsbPolicy | None:
    """Return the policy of a host; None if it has none. Raises PolicyError, which names the file, and OSError."""
    try:
        return parse_policy(path.read_bytes())
    except FileNotFoundError:
        return None
    except UsbPolicyError as error:
        raise UsbPolicyError(f"{path}: {error}") from None


def check_policy(data: object) -> UsbPolicy:
    """Turn what JSON or YAML gave into a policy. Raises PolicyError, with all that is wrong."""
    found = Check()
    policy = _read_members(found, data)
    found.raise_problems(UsbPolicyError)
    return policy


def _read_members(check: Check, data: object) -> UsbPolicy:
    given = check.members("$", data, KEYS)
    check.version(given, 1)
    return UsbPolicy(
        sysfs=_read_folder(check, *given.at("sysfs"), default="/sys"),
        dev=_read_folder(check, *given.at("dev"), default="/dev"),
        default_name=""
        if given.get("default_name") == ""
        else _read_name(check, *given.at("default_name"), default="ups"),
        takeover=check.truth(*given.at("takeover"), default=True),
        absent=check.choice(*given.at("absent"), ABSENT, " or ".join(ABSENT)),
        patterns=tuple(
            _read_pattern(check, *entry) for entry in check.entries(*given.at("patterns"), most=ENTRIES_LIMIT)
        ),
        rules=tuple(
            _read_rule(check, number, *entry)
            for number, entry in enumerate(check.entries(*given.at("rules"), most=ENTRIES_LIMIT), 1)
        ),
        debug=check.truth(*given.at("debug")),
    )


def _read_text(check: Check, path: str, value: object, most: int, default: str = "") -> str:
    """Return a text of 1 to MOST characters that can be written; else "", with its problem noted."""
    problem = ""
    if value is None:
        return default
    if not isinstance(value, str):
        problem = "must be a text. Put it into quotes"
    elif not value:
        problem = "is empty. Leave it out"
    elif len(value) > most:
        problem = f"has {len(value)} characters, and {most} is the most. Shorten it"
    elif _UNWRITTEN.search(value):
        problem = "holds a control character, or half of one. Take it out"
    if problem:
        check.add(path, problem)
    return "" if problem else str(value)


def _read_folder(check: Check, path: str, value: object, default: str) -> str:
    text = _read_text(check, path, value, 4096, default)
    if text and not text.startswith("/"):
        check.add(path, "must be a path that begins with /")
    return text


def _read_name(check: Check, path: str, value: object, default: str = "") -> str:
    text = _read_text(check, path, value, NAME_LIMIT, default)
    if text and (not ups_conf.NAME.fullmatch(text) or text == "default"):
        check.add(path, "must be made of letters, digits, hyphen and underscore, and not be 'default'")
    return text


def _read_pattern(check: Check, path: str, value: object) -> str:
    text = _read_text(check, path, value, GLOB_LIMIT)
    if text and not _IDS.fullmatch(text) and _NEARLY_IDS.fullmatch(text):
        check.add(path, "must be VID:PID in four hexadecimal digits each, such as 3746:ffff or 3746:*")
    elif _STARS.fullmatch(text):
        check.add(path, "would take every device for a UPS. Name the maker, such as *delta*")
    return text


def _read_rule(check: Check, number: int, path: str, data: object) -> DeviceRule:
    given = check.members(path, data, RULE_KEYS)
    texts = {key: _read_text(check, *given.at(key), GLOB_LIMIT) for key in _MATCHERS if given.get(key) is not None}
    for key in ("vendor", "product"):
        if _NEARLY_ID.fullmatch(texts.get(key, "")):
            check.add(f"{path}.{key}", "must be four hexadecimal digits without 0x, or a glob on the text")
    if isinstance(data, Mapping) and not texts:
        check.add(path, f"matches every device. Give one of {', '.join(_MATCHERS)}")
    ignore = check.truth(*given.at("ignore"))
    for key in ("name", "driver", "options") if ignore else ():
        if key in given:
            check.add(f"{path}.{key}", "means nothing for a device that is ignored. Take one of the two out")
    name, driver = _read_name(check, *given.at("name")), _read_name(check, *given.at("driver"))
    if driver in NO_USB:
        check.add(f"{path}.driver", f"{driver} drives no UPS on the bus. Name the driver, or leave it out")
    options = () if given.get("options") is None else _read_options(check, *given.at("options"))
    return DeviceRule(number=number, ignore=ignore, name=name, driver=driver, options=options, **texts)


def _read_options(check: Check, path: str, data: object) -> tuple[ups_conf.Pair, ...]:
    given = check.members(path, data, ())
    kept = {key: value for key, value in given.items() if _is_option(check, member_path(path, key), key, value)}
    if len({key.lower() for key in kept}) < len(kept):
        check.add(path, "has a key twice, in different case. Drivers make no difference: say it once")
        return ()
    try:
        made = ups_conf.build_section({"name": "ups", "options": kept})
    except ups_conf.DeviceError as error:
        check.add(path, str(error).partition(": ")[2])
        return ()
    return tuple(pair for pair in made.keys if pair[0] not in _OWN)


def _is_option(check: Check, path: str, key: str, value: object) -> bool:
    before = len(check.problems)
    if not ups_conf.KEY.fullmatch(key):
        check.add(path, "is no key of ups.conf")
    elif key.lower() in _OWN:
        check.add(path, "belongs to the rule or to the declared UPS, not under options")
    elif isinstance(value, str):
        if len(value) > 512 or not value.isascii() or _UNWRITTEN.search(value):
            check.add(path, "must be of at most 512 printable ASCII characters: NUT drops all others")
    elif isinstance(value, (int, float)):  # a truth value is a number to Python
        if key.lower() in _TEXTS and value is not False:
            check.add(path, "must be a text. Put it into quotes")
        # the comparison comes first: a float has no room for each number
        elif abs(value) > _NUMBER_LIMIT or math.isnan(value):
            check.add(path, "is no number that NUT could read. Put what you mean into quotes")
    else:
        check.add(path, "must be a text, a number, or true for a bare flag")
    return len(check.problems) == before
