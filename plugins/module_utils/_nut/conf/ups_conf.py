# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ups.conf as data: what a playbook says of its UPSes, rendered as NUT reads it, and read back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Union

from ..base.spelling import read_truth, suggest
from . import grammar
from .directives import DEVICE

# A name is also the instance of a systemd unit (nut-driver@NAME). The enumerator turns anything else into an MD5 sum.
NAME = re.compile(r"[A-Za-z0-9_-]+")
KEY = re.compile(r"[A-Za-z0-9_.-]{1,512}")  # grammar.WORD_LIMIT

Value = Union[str, int, float, bool]
Pair = tuple[str, Union[str, None]]

# The driver of a UPS for which the host itself finds one, by what is plugged in. NUT has no such driver.
AUTO = "auto"

# bytes of one answer of upsd (NUT_NET_ANSWER_MAX): a longer one loses its newline, and the next is read as part of it
ANSWER_LIMIT = 512

# upsd looks at these three itself. 2.8.0 dies of one without a value.
FIRST = ("driver", "port", "desc")
# digits in these are no number: YAML makes 307 of an Eaton's 0463
_TEXTS = ("vendorid", "productid", "serial")
# they put a value of the user's in the place of the UPS's own: default.VARIABLE, override.VARIABLE
_VARIABLES = ("default", "override")
# upsdrvctl 2.8.0 looks for these only on the line that makes its entry, so nothing may stand before them
_RANKS = {"driver": 0, "port": 1}


# what may stand beside a device; NUT takes keys in any case
_KEYS = {name.lower(): directive for name, directive in DEVICE.items() if not name.endswith(".*")}
_OWN_KEYS = ("name", "powervalue", *_VARIABLES, "options")


class DeviceError(ValueError):
    """A device can't be written into ups.conf as it was given; the message names the device and the key."""


@dataclass(frozen=True)
class Section:
    """One [name] of ups.conf. A value of None is a bare flag. The order of keys is the order in the file."""

    name: str
    keys: tuple[Pair, ...]


@dataclass(frozen=True)
class UpsConf:
    """A whole ups.conf: what stands before the first section, and the sections by name."""

    settings: tuple[Pair, ...]
    sections: Mapping[str, Section]


def build_section(device: Mapping[str, object]) -> Section:
    """Turn a device of a playbook into a section.

    device: name, driver (default usbhid-ups; auto is for USB), port (default auto), desc, and any other key that the tables know: a
    text, a number, true for a bare flag. One that is false, None or "" is left out. default and override map variables
    to values. options maps keys that the tables don't know to values; there "" is written. Its powervalue is for
    upsmon.conf. driver, port and desc come first, then the others in their order. Raises DeviceError.
    """
    name = str(device.get("name") or "")
    if not NAME.fullmatch(name) or name == "default":
        raise DeviceError(
            f"device {name!r}: a name is made of letters, digits, hyphen and underscore, and is not 'default'"
        )
    pairs = [
        ("driver", device.get("driver") or "usbhid-ups"),
        ("port", device.get("port") or "auto"),
        ("desc", device.get("desc") or None),
        *_further(name, device),
    ]
    keys: dict[str, Pair] = {}
    for key, value in pairs:
        if not KEY.fullmatch(key):
            raise DeviceError(f"device {name}: {key!r} is no key of ups.conf")
        if value is None or value is False:
            continue
        # drivers make no difference between Serial and serial
        if key.lower() in keys:
            raise DeviceError(f"device {name}: {key} is given twice, once perhaps under options. Say it once")
        if isinstance(value, (int, float)) and key.lower() in _TEXTS:
            raise DeviceError(
                f"device {name}: {key} is a number to YAML, which may have changed it. Put it into quotes"
            )
        if value is True and key in FIRST:
            raise DeviceError(f"device {name}: {key} must be a text")
        keys[key.lower()] = (key, None if value is True else _format_value(name, key, value))
    if keys["driver"][1] == AUTO and keys["port"][1] != "auto":
        raise DeviceError(f"device {name}: driver auto finds a UPS on the USB bus, so its port must be auto, too")
    desc = keys.get("desc", ("desc", None))[1]
    if desc is not None and len(f"UPSDESC {name} {grammar.quote_word(desc)}\n") > ANSWER_LIMIT:
        raise DeviceError(
            f"device {name}: desc has {len(desc)} characters, and upsd can't send it in an answer of {ANSWER_LIMIT} bytes. "
            "Shorten it"
        )
    return Section(name, tuple(keys.values()))


def _further(name: str, device: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in device.items():
        if key in FIRST or key in ("name", "powervalue"):
            continue
        if key in _VARIABLES:
            yield from _variable_pairs(name, key, _mapping(name, key, value))
        elif key == "options":
            for option, setting in _mapping(name, key, value).items():
                if option in (*FIRST, "name"):
                    raise DeviceError(f"device {name}: {option} belongs to the device itself, not under options")
                yield str(option), setting
        else:
            yield str(key), _known_setting(name, str(key), value)


def _known_setting(name: str, key: str, value: object) -> object:
    """Return the value of a key that stands beside a device, which must be one of the tables'. "" is None."""
    directive = _KEYS.get(key.lower())
    if directive is None and KEY.fullmatch(key):
        hint = suggest(key, [*DEVICE, *_OWN_KEYS]) or "A key of a driver other than usbhid-ups goes under options"
        raise DeviceError(f"device {name}: there is no key {key}. {hint}")
    if directive is None:
        return value  # no key at all, which section() refuses
    if value in (None, ""):
        return None
    if directive.kind == "flag":
        try:
            return read_truth(value)
        except ValueError as error:
            raise DeviceError(f"device {name}: {key}: {error}") from None
    if directive.kind == "yes|no|auto" and isinstance(value, bool):
        return "yes" if value else "no"
    return value


def _variable_pairs(name: str, key: str, values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for variable, value in values.items():
        # YAML takes a bare yes for true, and NUT's variables say yes, no, enabled...
        if isinstance(value, bool):
            raise DeviceError(
                f"device {name}: {key}.{variable} is a truth value, and needs NUT's own word. Put it into quotes"
            )
        yield f"{key}.{variable}", value


def _mapping(name: str, key: str, value: object) -> Mapping[str, object]:
    found = value or {}
    if not isinstance(found, Mapping):
        raise DeviceError(f"device {name}: {key} must map {'keys' if key == 'options' else 'variables'} to values")
    return found


def _format_value(name: str, key: str, value: object) -> str:
    if not isinstance(value, (str, int, float)):
        raise DeviceError(f"device {name}: {key} must be a text, a number, or true for a bare flag")
    text = str(value)
    try:
        grammar.quote_word(text)
    except grammar.Unencodable as error:
        raise DeviceError(f"device {name}: {key}: {error}") from None
    return text


def is_auto(one: Section) -> bool:
    """Return whether the driver of a section is still to be found."""
    return ("driver", AUTO) in one.keys


def build_sections(devices: Sequence[Mapping[str, object]]) -> tuple[Section, ...]:
    """Turn a playbook's devices into sections. Raises DeviceError, also for two of one name."""
    made = tuple(build_section(device) for device in devices)
    # upsd makes no difference between ups and UPS
    names = [one.name.lower() for one in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeviceError(f"two devices are called {', '.join(twice)}. Each UPS needs a name of its own")
    return made


def render_sections(made: Sequence[Section]) -> str:
    """Write sections as NUT reads them: every value quoted, driver and port first, a newline at the end."""
    blocks = []
    for one in made:
        keys = sorted(one.keys, key=lambda pair: _RANKS.get(pair[0], len(_RANKS)))
        blocks.append(
            "\n".join([_quote_if_needed(f"[{one.name}]"), *(f"    {_format_pair(*pair)}" for pair in keys)]) + "\n"
        )
    return "\n".join(blocks)


def render_conf(conf: UpsConf) -> str:
    """Write a whole ups.conf. parse_ups_conf() reads the same out of it, but for driver and port, which come first."""
    settings = "".join(f"{_format_pair(*pair)}\n" for pair in conf.settings)
    made = render_sections(tuple(conf.sections.values()))
    return f"{settings}\n{made}" if settings and made else settings + made


def _format_pair(key: str, value: str | None) -> str:
    return _quote_if_needed(key) if value is None else f"{_quote_if_needed(key)} = {grammar.quote_word(value)}"


def _quote_if_needed(word: str) -> str:
    """Write a word without quotes where NUT needs none: the enumerator does not know a header or a key in quotes."""
    return word if [line.words for line in grammar.parse_lines(f"{word}\n")] == [(word,)] else grammar.quote_word(word)


def parse_ups_conf(text: str) -> UpsConf:
    """Read a ups.conf as NUT does (common/upsconf.c). What NUT skips is left out; grammar.find_problems() names some."""
    settings: list[Pair] = []
    found: dict[str, list[Pair]] = {}
    keys = settings
    for line in grammar.parse_lines(text):
        first = line.words[0]
        if first.startswith("[") and first.endswith("]"):
            # whatever else stands on the line
            keys = found.setdefault(first[1:-1], [])
        elif len(line.words) == 1:
            keys.append((first, None))
        elif len(line.words) >= 3 and line.words[1] == "=":
            keys.append((first, line.words[2]))
    return UpsConf(tuple(settings), {name: Section(name, tuple(pairs)) for name, pairs in found.items()})
