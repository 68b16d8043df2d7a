# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What shall become of the UPSes that are found on the bus: the policy, a JSON file, checked before use."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..conf import ups_conf

if TYPE_CHECKING:
    from .bus import UsbDevice

# Characters of a file, entries of a list, characters of a pattern: nobody needs more, and no run shall take for ever.
TEXT_LIMIT = 1 << 20
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
_RULE_KEYS = (*_MATCHERS, "ignore", "name", "driver", "options")
_KEYS = ("version", "sysfs", "dev", "unknown", "takeover", "absent", "patterns", "rules", "debug")


class PolicyError(ValueError):
    """A policy can't be used; the message lists all that is wrong with it, a line each, with its JSON path."""


def _glob(pattern: str, *texts: str) -> bool:
    """Match a shell's pattern with texts, in any case; what a device says may have blanks at its ends that nobody sees."""
    try:
        # Python's own pattern for it does not go back over what a star took, so the cost is bounded by the lengths
        return any(
            fnmatch.fnmatchcase(text, pattern.lower()) for one in texts for text in (one.lower(), one.strip().lower())
        )
    except re.error:  # a range such as [z-a], to older Pythons
        return False


def _id_or_glob(pattern: str, number: str, text: str) -> bool:
    return pattern.lower() == number if _ID.fullmatch(pattern) else _glob(pattern, text)


@dataclass(frozen=True)
class Rule:
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

    def matches(self, device: UsbDevice) -> bool:
        """Say whether all that the rule asks for is true of the device."""
        return (
            (not self.vendor or _id_or_glob(self.vendor, device.vendor_id, device.manufacturer))
            and (not self.product or _id_or_glob(self.product, device.product_id, device.product))
            and (not self.serial or _glob(self.serial, device.serial))
            and (not self.port or _glob(self.port, device.name, device.place))
        )

    def __str__(self) -> str:
        """Name it in a sentence."""
        return f"rule {self.number}"


@dataclass(frozen=True)
class Policy:
    """The policy of a host. sysfs, dev: where to look. unknown: what an unknown UPS is called; "" leaves it alone."""

    sysfs: str = "/sys"
    dev: str = "/dev"
    unknown: str = "ups"
    takeover: bool = True
    absent: str = "keep"
    patterns: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    debug: bool = False

    def rule_for(self, device: UsbDevice) -> Rule | None:
        """Return the first rule that matches."""
        return next((rule for rule in self.rules if rule.matches(device)), None)

    def ignores(self, device: UsbDevice) -> bool:
        """Say whether the device is to be left alone, whatever it is."""
        rule = self.rule_for(device)
        return rule is not None and rule.ignore

    def matches(self, device: UsbDevice) -> str:
        """Say why the policy takes a device for a UPS: "rule 2", "pattern 3746:ffff"; "" if it does not."""
        rule = self.rule_for(device)
        if rule:
            return "" if rule.ignore else str(rule)
        return next((f"pattern {one}" for one in self.patterns if _takes(one, device)), "")


def _takes(pattern: str, device: UsbDevice) -> bool:
    if _IDS.fullmatch(pattern):
        vendor, product = pattern.lower().split(":")
        return vendor == device.vendor_id and product in ("*", device.product_id)
    return _glob(pattern, device.manufacturer, device.product)


# Reading


class _Object(dict[str, object]):
    """An object of JSON that knows which of its keys it was given twice."""

    twice: tuple[str, ...] = ()


def _object(pairs: Sequence[tuple[str, object]]) -> _Object:
    made = _Object(pairs)
    names = [key for key, _unused in pairs] if len(made) < len(pairs) else []
    made.twice = tuple(sorted({key for key in names if names.count(key) > 1}))
    return made


def _number(digits: str) -> int:
    # a number of a million digits takes older Pythons minutes
    return int(digits) if len(digits) <= 20 else _NUMBER_LIMIT * (-10 if digits.startswith("-") else 10)


def _constant(word: str) -> NoReturn:
    raise PolicyError(f"$: {word} is no JSON. Write a number, or leave it out")


def load(text: str | bytes) -> Policy:
    """Read a policy from the text of its file. Raises PolicyError."""
    if len(text) > TEXT_LIMIT:
        raise PolicyError(f"$: more than {TEXT_LIMIT} characters. A policy is a page")
    try:
        # surrogates stand for bytes that were no UTF-8
        plain = text.decode() if isinstance(text, bytes) else text.encode().decode()
        data = json.loads(plain, object_pairs_hook=_object, parse_int=_number, parse_constant=_constant)
    except UnicodeError:
        raise PolicyError("$: not UTF-8. Save the file as UTF-8") from None
    except RecursionError:
        raise PolicyError("$: too many brackets inside of each other. A policy needs three") from None
    except json.JSONDecodeError as error:
        raise PolicyError(
            f"$: no JSON, line {error.lineno}, column {error.colno}: {error.msg}. Mend it there"
        ) from None
    return check(data)


def read(path: Path) -> Policy | None:
    """Read the policy of a host; None if it has none. Raises PolicyError, which names the file, and OSError."""
    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        return None
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from None


def check(data: object) -> Policy:
    """Turn what JSON or YAML gave into a policy. Raises PolicyError, with all that is wrong."""
    check_ = _Check()
    policy = check_.policy(data)
    if check_.problems:
        raise PolicyError("\n".join(check_.problems))
    return policy


def _path(path: str, key: str) -> str:
    return f"{path}.{key}" if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) else f"{path}[{json.dumps(key[:80])}]"


class _Check:
    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, path: str, words: str) -> None:
        self.problems.append(f"{path}: {words}")

    def policy(self, data: object) -> Policy:
        given = self.mapping("$", data, _KEYS, "a policy")
        version = given.get("version", 1)
        if isinstance(version, bool) or version != 1:
            self.wrong("$.version", "must be 1, the only version there is")
        absent = given.get("absent", "keep")
        if absent not in ("keep", "dummy"):
            self.wrong("$.absent", "must be keep or dummy")
        return Policy(
            sysfs=self.folder("$.sysfs", given.get("sysfs", "/sys")),
            dev=self.folder("$.dev", given.get("dev", "/dev")),
            unknown=self.name("$.unknown", given.get("unknown", "ups"), empty=True),
            takeover=self.truth("$.takeover", given.get("takeover", True)),
            absent=str(absent),
            patterns=tuple(self.pattern(path, one) for path, one in self.entries("$.patterns", given.get("patterns"))),
            rules=tuple(
                self.rule(path, number, one)
                for number, (path, one) in enumerate(self.entries("$.rules", given.get("rules")), 1)
            ),
            debug=self.truth("$.debug", given.get("debug", False)),
        )

    def mapping(self, path: str, data: object, known: Sequence[str], what: str) -> Mapping[str, object]:
        """Return an object's keys that are known."""
        if not isinstance(data, Mapping):
            self.wrong(path, "must be an object: { ... }")
            return {}
        for key in getattr(data, "twice", ()):
            self.wrong(_path(path, key), "is given twice. Say it once")
        for key in data:
            if not isinstance(key, str) or (known and key not in known):
                self.wrong(_path(path, str(key)), f"is no key of {what}. It knows {', '.join(known)}")
        return {key: value for key, value in data.items() if isinstance(key, str)}

    def entries(self, path: str, data: object) -> Iterator[tuple[str, object]]:
        if data is None:
            return
        if not isinstance(data, (list, tuple)):
            self.wrong(path, "must be a list: [ ... ]")
            return
        if len(data) > ENTRIES_LIMIT:
            self.wrong(path, f"has {len(data)} entries, and {ENTRIES_LIMIT} is the most. Use globs")
            return
        for number, one in enumerate(data):
            yield f"{path}[{number}]", one

    def truth(self, path: str, value: object) -> bool:
        if not isinstance(value, bool):
            self.wrong(path, "must be true or false")
        return value is True

    def text(self, path: str, value: object, most: int) -> str:
        """Return a text of 1 to MOST characters that can be written; else "", with its problem noted."""
        problem = ""
        if not isinstance(value, str):
            problem = "must be a text. Put it into quotes"
        elif not value:
            problem = "is empty. Leave it out"
        elif len(value) > most:
            problem = f"has {len(value)} characters, and {most} is the most. Shorten it"
        elif _UNWRITTEN.search(value):
            problem = "holds a control character, or half of one. Take it out"
        if problem:
            self.wrong(path, problem)
        return "" if problem else str(value)

    def folder(self, path: str, value: object) -> str:
        text = self.text(path, value, 4096)
        if text and not text.startswith("/"):
            self.wrong(path, "must be a path that begins with /")
        return text

    def name(self, path: str, value: object, *, empty: bool = False) -> str:
        if empty and value == "":
            return ""
        text = self.text(path, value, NAME_LIMIT)
        if text and (not ups_conf.NAME.fullmatch(text) or text == "default"):
            self.wrong(path, "must be made of letters, digits, hyphen and underscore, and not be 'default'")
        return text

    def pattern(self, path: str, value: object) -> str:
        text = self.text(path, value, GLOB_LIMIT)
        if text and not _IDS.fullmatch(text) and _NEARLY_IDS.fullmatch(text):
            self.wrong(path, "must be VID:PID in four hexadecimal digits each, such as 3746:ffff or 3746:*")
        elif _STARS.fullmatch(text):
            self.wrong(path, "would take every device for a UPS. Name the maker, such as *delta*")
        return text

    def matcher(self, path: str, key: str, value: object) -> str:
        text = self.text(path, value, GLOB_LIMIT)
        if key in ("vendor", "product") and _NEARLY_ID.fullmatch(text):
            self.wrong(path, "must be four hexadecimal digits without 0x, or a glob on the text")
        return text

    def rule(self, path: str, number: int, data: object) -> Rule:
        given = self.mapping(path, data, _RULE_KEYS, "a rule")
        texts = {key: self.matcher(f"{path}.{key}", key, given[key]) for key in _MATCHERS if key in given}
        if isinstance(data, Mapping) and not texts:
            self.wrong(path, f"matches every device. Give one of {', '.join(_MATCHERS)}")
        ignore = self.truth(f"{path}.ignore", given.get("ignore", False))
        if ignore:
            for key in ("name", "driver", "options"):
                if key in given:
                    self.wrong(f"{path}.{key}", "means nothing for a device that is ignored. Take one of the two out")
        return Rule(
            number=number,
            ignore=ignore,
            name=self.name(f"{path}.name", given["name"]) if "name" in given else "",
            driver=self.driver(f"{path}.driver", given["driver"]) if "driver" in given else "",
            options=self.options(f"{path}.options", given["options"]) if "options" in given else (),
            **texts,
        )

    def driver(self, path: str, value: object) -> str:
        text = self.name(path, value)
        if text in NO_USB:
            self.wrong(path, f"{text} drives no UPS on the bus. Name the driver, or leave it out")
        return text

    def options(self, path: str, data: object) -> tuple[ups_conf.Pair, ...]:
        given = self.mapping(path, data, (), "the options")
        kept = {key: value for key, value in given.items() if self.option(_path(path, key), key, value)}
        if len({key.lower() for key in kept}) < len(kept):
            # as a schema can't say
            self.wrong(path, "has a key twice, in different case. Drivers make no difference: say it once")
            return ()
        try:
            made = ups_conf.section({"name": "ups", "options": kept})
        except ups_conf.DeviceError as error:
            self.wrong(path, str(error).partition(": ")[2])
            return ()
        return tuple(pair for pair in made.keys if pair[0] not in _OWN)

    def option(self, path: str, key: str, value: object) -> bool:
        before = len(self.problems)
        if not ups_conf.KEY.fullmatch(key):
            self.wrong(path, "is no key of ups.conf")
        elif key.lower() in _OWN:
            self.wrong(path, "belongs to the rule or to the declared UPS, not under options")
        elif isinstance(value, str):
            if len(value) > 512 or not value.isascii() or _UNWRITTEN.search(value):
                self.wrong(path, "must be of at most 512 printable ASCII characters: NUT drops all others")
        elif isinstance(value, (int, float)):  # a truth value is a number to Python
            if key.lower() in _TEXTS and value is not False:
                self.wrong(path, "must be a text. Put it into quotes")
            # the comparison comes first: a float has no room for each number
            elif abs(value) > _NUMBER_LIMIT or math.isnan(value):
                self.wrong(path, "is no number that NUT could read. Put what you mean into quotes")
        else:
            self.wrong(path, "must be a text, a number, or true for a bare flag")
        return len(self.problems) == before


def _text_of(most: int, **more: object) -> dict[str, object]:
    unwritten = {"pattern": "[\\u0000-\\u001f\\u007f\\ud800-\\udfff]"}
    return {"type": "string", "minLength": 1, "maxLength": most, "allOf": [{"not": unwritten}], **more}


def _name_of(*refused: str) -> dict[str, object]:
    # not a pattern with $, which lets some take a newline at the end
    return _text_of(NAME_LIMIT, **{"not": {"anyOf": [{"pattern": "[^A-Za-z0-9_-]"}, {"enum": list(refused)}]}})


def _whole(expression: str) -> str:
    return f"^(?:{expression})(?![\\s\\S])"


_FOLDER = _text_of(4096, pattern="^/")
_MATCHER = _text_of(GLOB_LIMIT)
_ID_OR_TEXT = _text_of(GLOB_LIMIT, **{"not": {"pattern": _whole(_NEARLY_ID.pattern)}})
_ANY_CASE_TEXTS = "|".join("".join(f"[{c}{c.upper()}]" for c in one) for one in _TEXTS)
_ANY_CASE_OWN = "|".join("".join(f"[{c}{c.upper()}]" for c in one) for one in _OWN)
_OPTION_TEXT = {"type": "string", "maxLength": 512, "not": {"pattern": "[^ -~]"}}
_ONLY_TEXT = {"anyOf": [_OPTION_TEXT, {"const": False}]}

SCHEMA: Mapping[str, object] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Policy of nut-hotplug",
    "description": "What shall become of the UPSes that are found on the USB bus. Each key may be left out.",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "version": {"const": 1, "description": "The version of this format."},
        "sysfs": {**_FOLDER, "default": "/sys", "description": "Where the bus is looked for."},
        "dev": {**_FOLDER, "default": "/dev", "description": "Where the devices' nodes are."},
        "unknown": {
            "anyOf": [{"const": ""}, _name_of("default")],
            "default": "ups",
            "description": "What an unknown UPS is called: NAME, then NAME2, NAME3. Empty: unknown UPSes are left alone.",
        },
        "takeover": {
            "type": "boolean",
            "default": True,
            "description": "A UPS that was swapped takes the name of one that is not there any more.",
        },
        "absent": {
            "enum": ["keep", "dummy"],
            "default": "keep",
            "description": "What upsd says of a UPS that is not there: the truth, or what dummy-ups says in its place.",
        },
        "patterns": {
            "type": ["array", "null"],
            "maxItems": ENTRIES_LIMIT,
            "description": "More devices that are UPSes: VID:PID, VID:*, or a glob on the text of maker or product.",
            "items": _text_of(
                GLOB_LIMIT,
                anyOf=[
                    {"pattern": _whole(_IDS.pattern)},
                    {"not": {"pattern": _whole(f"{_NEARLY_IDS.pattern}|{_STARS.pattern}")}},
                ],
            ),
        },
        "rules": {
            "type": ["array", "null"],
            "maxItems": ENTRIES_LIMIT,
            "description": "What is done with certain devices. The first rule that matches counts.",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "anyOf": [{"required": [key]} for key in _MATCHERS],
                "if": {"properties": {"ignore": {"const": True}}, "required": ["ignore"]},
                "then": {"properties": {"name": False, "driver": False, "options": False}},
                "properties": {
                    "vendor": {**_ID_OR_TEXT, "description": "Four hexadecimal digits, or a glob on the maker's text."},
                    "product": {
                        **_ID_OR_TEXT,
                        "description": "Four hexadecimal digits, or a glob on the product's text.",
                    },
                    "serial": {**_MATCHER, "description": "A glob on the serial."},
                    "port": {**_MATCHER, "description": "A glob on the name in sysfs, such as 1-1.4, or on the place."},
                    "ignore": {"type": "boolean", "default": False, "description": "Leave it alone."},
                    "name": {**_name_of("default"), "description": "What it is called."},
                    "driver": {**_name_of("default", *NO_USB), "description": "NUT's driver for it."},
                    "options": {
                        "type": "object",
                        "description": "More keys of its section: a text, a number, or true for a bare flag.",
                        "propertyNames": {
                            "minLength": 1,
                            "not": {"anyOf": [{"pattern": "[^A-Za-z0-9_.-]"}, {"pattern": _whole(_ANY_CASE_OWN)}]},
                        },
                        "patternProperties": {_whole(_ANY_CASE_TEXTS): _ONLY_TEXT},
                        "additionalProperties": {
                            "anyOf": [
                                _OPTION_TEXT,
                                {"type": "number", "minimum": -_NUMBER_LIMIT, "maximum": _NUMBER_LIMIT},
                                {"type": "boolean"},
                            ]
                        },
                    },
                },
            },
        },
        "debug": {"type": "boolean", "default": False, "description": "Say more in the journal."},
    },
}
"""The same as check() wants, for editors and documentation; but that no schema can ask for keys to differ in more than case."""
