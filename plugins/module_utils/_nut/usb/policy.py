# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The policy for UPSes on the USB bus: a JSON file, checked before use."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.check import Checker, member_path, read_json
from ..conf import ups_conf
from ..conf.usb_keys import correct_id, explain_unmatchable

if TYPE_CHECKING:
    from .bus import UsbDevice

# Limits for entries of a list and characters of a pattern, so that no run takes for ever.
ENTRIES_LIMIT = 1000
GLOB_LIMIT = 256
# short enough for a unit's name even with digits appended, as in NAME2
NAME_LIMIT = 64
_NUMBER_LIMIT = 10**15

# drivers that are not for USB even with the port "auto", and "auto", which leaves the choice to us
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
    "nhs_ser",
    "hwmon_ina219",
    "macosx-ups",
)

_IDS = re.compile(r"[0-9a-fA-F]{4}:(?:[0-9a-fA-F]{4}|\*)")
_ID = re.compile(r"[0-9a-fA-F]{4}")
# A typo in VID:PID would be a glob that never matches; a glob of stars alone would take every keyboard for a UPS.
_NEARLY_IDS = re.compile(r"[0-9a-fA-FxX*?]+:[0-9a-fA-FxX*?]*")
_STARS = re.compile(r"[*?]+")
_NEARLY_ID = re.compile(r"0[xX][0-9a-fA-F]*|(?=[a-fA-F]*[0-9])[0-9a-fA-F]{1,3}|[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,4}")
# control characters and lone surrogates, which no device or file has
_UNWRITTEN = re.compile("[\u0000-\u001f\u007f\ud800-\udfff]")
_OWN = ("driver", "port", "desc", "name")
_TEXTS = ("vendorid", "productid", "serial")

_MATCHERS = ("vendor", "product", "serial", "port")
RULE_KEYS = (*_MATCHERS, "ignore", "name", "driver", "options")
KEYS = ("version", "sysfs", "dev", "default_name", "takeover", "absent", "patterns", "rules", "debug")
ABSENT = ("keep", "dummy")


class UsbPolicyError(ValueError):
    """A policy is invalid; the message has a line for each problem, with its JSON path."""


def _matches_glob(pattern: str, *texts: str) -> bool:
    """Return whether a glob matches one of the texts, as they are or stripped, in any case."""
    try:
        # fnmatch's pattern does not backtrack over stars, so its cost is bounded
        return any(
            fnmatch.fnmatchcase(text, pattern.lower())
            for shown in texts
            for text in (shown.lower(), shown.strip().lower())
        )
    except re.error:  # a range such as [z-a] in older Pythons
        return False


def _id_or_glob(pattern: str, number: str, text: str) -> bool:
    return pattern.lower() == number if _ID.fullmatch(pattern) else _matches_glob(pattern, text)


@dataclass(frozen=True)
class DeviceRule:
    """What to do with devices that match all patterns of the rule. "" means not given."""

    number: int  # its place in the file, from 1
    vendor: str = ""  # four hex digits, or a glob on the device's text
    product: str = ""  # likewise
    serial: str = ""  # a glob
    port: str = ""  # a glob on the device's name in sysfs or on its place
    ignore: bool = False
    name: str = ""  # of the section
    driver: str = ""
    options: tuple[ups_conf.Pair, ...] = ()  # further keys of the section

    def matches_device(self, device: UsbDevice) -> bool:
        """Return whether the device matches all patterns of the rule."""
        return (
            (not self.vendor or _id_or_glob(self.vendor, device.vendor_id, device.manufacturer))
            and (not self.product or _id_or_glob(self.product, device.product_id, device.product))
            and (not self.serial or _matches_glob(self.serial, device.serial))
            and (not self.port or _matches_glob(self.port, device.name, device.place))
        )

    def __str__(self) -> str:
        """Return the rule's name for messages."""
        return f"rule {self.number}"


@dataclass(frozen=True)
class UsbPolicy:
    """The policy of a host."""

    sysfs: str = "/sys"  # where sysfs is
    dev: str = "/dev"  # where device nodes are
    default_name: str = "ups"  # name of undeclared UPSes, with a number from the second on; "" leaves them alone
    takeover: bool = True  # whether a new UPS may take the name of an absent one
    absent: str = "keep"  # what runs in place of an absent UPS: its own driver ("keep") or dummy-ups ("dummy")
    patterns: tuple[str, ...] = ()  # VID:PID, or globs on manufacturer or product, of further UPSes
    rules: tuple[DeviceRule, ...] = ()  # the first that matches a device counts
    debug: bool = False  # whether nut-hotplug logs details

    def rule_for(self, device: UsbDevice) -> DeviceRule | None:
        """Return the first rule that matches a device."""
        return next((rule for rule in self.rules if rule.matches_device(device)), None)

    def is_ignored(self, device: UsbDevice) -> bool:
        """Return whether a rule ignores the device."""
        rule = self.rule_for(device)
        return rule is not None and rule.ignore

    def explain_match(self, device: UsbDevice) -> str:
        """Return what makes a device a UPS: "rule 2", "pattern 3746:ffff"; "" if nothing does."""
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
    """Parse the text of a policy file. Raises UsbPolicyError."""
    return check_policy(read_json(text, UsbPolicyError))


def read_policy(path: Path) -> UsbPolicy | None:
    """Read a policy file; None if it does not exist. Raises UsbPolicyError, which names the file, and OSError."""
    try:
        return parse_policy(path.read_bytes())
    except FileNotFoundError:
        return None
    except UsbPolicyError as error:
        raise UsbPolicyError(f"{path}: {error}") from None


def check_policy(data: object) -> UsbPolicy:
    """Return the policy that JSON or YAML data holds. Raises UsbPolicyError with all problems."""
    checker = Checker()
    policy = _read_members(checker, data)
    checker.raise_problems(UsbPolicyError)
    return policy


def _read_members(check: Checker, data: object) -> UsbPolicy:
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


def _read_text(check: Checker, path: str, value: object, most: int, default: str = "") -> str:
    """Return a printable text of 1 to MOST characters; else "", with the problem added to CHECK."""
    problem = ""
    if value is None:
        return default
    if not isinstance(value, str):
        problem = "must be a string. Put it into quotes"
    elif not value:
        problem = "is empty. Leave it out"
    elif len(value) > most:
        problem = f"has {len(value)} characters; the limit is {most}. Shorten it"
    elif _UNWRITTEN.search(value):
        problem = "contains a control character or a lone surrogate. Remove it"
    if problem:
        check.add(path, problem)
    return "" if problem else str(value)


def _read_folder(check: Checker, path: str, value: object, default: str) -> str:
    text = _read_text(check, path, value, 4096, default)
    if text and not text.startswith("/"):
        check.add(path, "must be a path that begins with /")
    return text


def _read_name(check: Checker, path: str, value: object, default: str = "") -> str:
    text = _read_text(check, path, value, NAME_LIMIT, default)
    if text and (not ups_conf.NAME.fullmatch(text) or text == "default"):
        check.add(path, "must consist of letters, digits, hyphens and underscores, and not be 'default'")
    return text


def _read_pattern(check: Checker, path: str, value: object) -> str:
    text = _read_text(check, path, value, GLOB_LIMIT)
    if text and not _IDS.fullmatch(text) and _NEARLY_IDS.fullmatch(text):
        check.add(path, "must be VID:PID with four hexadecimal digits each, such as 3746:ffff or 3746:*")
    elif _STARS.fullmatch(text):
        check.add(path, "would match every device. Name the manufacturer, such as *delta*")
    return text


def _read_rule(check: Checker, number: int, path: str, data: object) -> DeviceRule:
    given = check.members(path, data, RULE_KEYS)
    texts = {key: _read_text(check, *given.at(key), GLOB_LIMIT) for key in _MATCHERS if given.get(key) is not None}
    for key in ("vendor", "product"):
        if _NEARLY_ID.fullmatch(texts.get(key, "")):
            meant = correct_id(f"{key}id", texts[key])
            check.add(
                f"{path}.{key}",
                f'must be four hexadecimal digits without 0x, such as "{meant or "051d"}", or a glob on the device\'s text',
            )
    if isinstance(data, Mapping) and not texts:
        check.add(path, f"matches every device. Set at least one of {', '.join(_MATCHERS)}")
    ignore = check.truth(*given.at("ignore"))
    for key in ("name", "driver", "options") if ignore else ():
        if key in given:
            check.add(f"{path}.{key}", "has no effect on an ignored device. Remove it, or ignore")
    name, driver = _read_name(check, *given.at("name")), _read_name(check, *given.at("driver"))
    if driver in NO_USB:
        check.add(f"{path}.driver", f"{driver} is not a driver for USB. Set one that is, or leave it out")
    options = () if given.get("options") is None else _read_options(check, *given.at("options"))
    return DeviceRule(number=number, ignore=ignore, name=name, driver=driver, options=options, **texts)


def _read_options(check: Checker, path: str, data: object) -> tuple[ups_conf.Pair, ...]:
    given = check.members(path, data, ())
    kept = {key: value for key, value in given.items() if _is_option(check, member_path(path, key), key, value)}
    if len({key.lower() for key in kept}) < len(kept):
        check.add(path, "has the same key twice in different case. Drivers ignore case: keep one")
        return ()
    try:
        made = ups_conf.build_section({"name": "ups", "options": kept})
    except ups_conf.DeviceError as error:
        check.add(path, str(error).partition(": ")[2])
        return ()
    for key, value in made.keys:
        if why := explain_unmatchable(key, value):
            check.add(member_path(path, key), why)
    return tuple(pair for pair in made.keys if pair[0] not in _OWN)


def _is_option(check: Checker, path: str, key: str, value: object) -> bool:
    before = len(check.problems)
    if not ups_conf.KEY.fullmatch(key):
        check.add(path, "is not a valid key of ups.conf")
    elif key.lower() in _OWN:
        check.add(path, "belongs to the rule or to the declared UPS, not into options")
    elif isinstance(value, str):
        if len(value) > 512 or not value.isascii() or _UNWRITTEN.search(value):
            check.add(path, "must have at most 512 characters, all printable ASCII: NUT drops others")
    elif isinstance(value, (int, float)):  # includes bool
        if key.lower() in _TEXTS and value is not False:
            check.add(path, "must be a string. Put it into quotes")
        # compared first, because math.isnan() fails on huge integers
        elif abs(value) > _NUMBER_LIMIT or math.isnan(value):
            check.add(path, "is a number that NUT can't read. Put it into quotes if it is meant")
    else:
        check.add(path, "must be a string, a number, or true for a bare flag")
    return len(check.problems) == before
