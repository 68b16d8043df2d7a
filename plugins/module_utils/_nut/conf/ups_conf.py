# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ups.conf as data: built from a playbook's devices, written as NUT reads it, and read back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

# The host determines the driver from what is plugged in. NUT has no driver of this name.
AUTO = "auto"

# bytes of an answer of upsd (NUT_NET_ANSWER_MAX): a longer one loses its newline, and merges with the next
ANSWER_LIMIT = 512

# upsd itself reads these three. 2.8.0 crashes if one has no value.
FIRST = ("driver", "port", "desc")
# not numbers, even if they are all digits: YAML reads an Eaton's 0463 as 307
_TEXTS = ("vendorid", "productid", "serial")
# replace values of the UPS with the user's: default.VARIABLE, override.VARIABLE
_VARIABLES = ("default", "override")
# upsdrvctl 2.8.0 misses these unless they are the first keys of a section
_RANKS = {"driver": 0, "port": 1}


# the keys of a device; NUT ignores the case of keys
_KEYS = {name.lower(): directive for name, directive in DEVICE.items() if not name.endswith(".*")}
_OWN_KEYS = ("name", "powervalue", *_VARIABLES, "options")


# usbhid-ups before 2.8.3 tells a CyberPower to cut the power after 20 s and to restore it after 30 s. These UPSes count whole minutes,
# so they cut it at once. Newer releases have these defaults themselves (drivers/cps-hid.c).
CPS_DELAYS = (("offdelay", "60"), ("ondelay", "120"))
CPS_VENDOR = "0764"


class DeviceError(ValueError):
    """A device that can't be written to ups.conf; the message names the device and the key."""


@dataclass(frozen=True)
class Section:
    """One [name] of ups.conf. A value of None is a bare flag. The order of keys is the order in the file."""

    name: str
    keys: tuple[Pair, ...]


@dataclass(frozen=True)
class UpsConf:
    """A whole ups.conf."""

    settings: tuple[Pair, ...]  # before the first section
    sections: Mapping[str, Section]  # by name


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
            f"device {name!r}: a name may have only letters, digits, hyphens and underscores, and must not be 'default'"
        )
    pairs = [
        ("driver", device.get("driver") or "usbhid-ups"),
        ("port", device.get("port") or "auto"),
        ("desc", device.get("desc") or None),
        *_list_other_pairs(name, device),
    ]
    keys: dict[str, Pair] = {}
    for key, value in pairs:
        if not KEY.fullmatch(key):
            raise DeviceError(f"device {name}: {key!r} is not a key of ups.conf")
        if value is None or value is False:
            continue
        # to drivers, Serial and serial are the same
        if key.lower() in keys:
            raise DeviceError(f"device {name}: {key} is given twice, perhaps once under options. Remove one")
        if isinstance(value, (int, float)) and key.lower() in _TEXTS:
            raise DeviceError(f"device {name}: YAML reads {key} as a number, and may have changed it. Put it in quotes")
        if value is True and key in FIRST:
            raise DeviceError(f"device {name}: {key} must be a string")
        keys[key.lower()] = (key, None if value is True else _format_value(name, key, value))
    if keys["driver"][1] == AUTO and keys["port"][1] != "auto":
        raise DeviceError(f"device {name}: driver auto finds a UPS on the USB bus, so its port must be auto, too")
    desc = keys.get("desc", ("desc", None))[1]
    if desc is not None and len(f"UPSDESC {name} {grammar.quote_word(desc)}\n") > ANSWER_LIMIT:
        raise DeviceError(
            f"device {name}: desc has {len(desc)} characters, too many for upsd's answer of {ANSWER_LIMIT} bytes. "
            "Shorten it"
        )
    return Section(name, tuple(keys.values()))


def _list_other_pairs(name: str, device: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in device.items():
        if key in FIRST or key in ("name", "powervalue"):
            continue
        if key in _VARIABLES:
            yield from _variable_pairs(name, key, _check_mapping(name, key, value))
        elif key == "options":
            for option, setting in _check_mapping(name, key, value).items():
                if option in (*FIRST, "name"):
                    raise DeviceError(f"device {name}: {option} belongs to the device itself, not under options")
                yield str(option), setting
        else:
            yield str(key), _known_setting(name, str(key), value)


def _known_setting(name: str, key: str, value: object) -> object:
    """Return the value of a key of a device, which must be in the tables. "" becomes None."""
    family = f"{key.partition('.')[0]}.*".lower()  # such as override.battery.charge.low
    directive = _KEYS.get(key.lower()) or DEVICE.get(family)
    if directive is None and KEY.fullmatch(key):
        hint = (
            suggest(key, [*DEVICE, *_OWN_KEYS])
            or f"Write a key of a driver other than usbhid-ups as options: {{{key}: ...}}"
        )
        raise DeviceError(f"device {name}: there is no key {key}. {hint}")
    if directive is None:
        return value  # not a valid key; build_section() refuses it
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
        # YAML reads a bare yes as true, but NUT's variables are yes, no, enabled...
        if isinstance(value, bool):
            raise DeviceError(f"device {name}: {key}.{variable} is a boolean in YAML. Put NUT's own word in quotes")
        yield f"{key}.{variable}", value


def _check_mapping(name: str, key: str, value: object) -> Mapping[str, object]:
    found = value or {}
    if not isinstance(found, Mapping):
        raise DeviceError(f"device {name}: {key} must map {'keys' if key == 'options' else 'variables'} to values")
    return found


def _format_value(name: str, key: str, value: object) -> str:
    if not isinstance(value, (str, int, float)):
        raise DeviceError(f"device {name}: {key} must be a string, a number, or true for a flag")
    text = str(value)
    try:
        grammar.quote_word(text)
    except grammar.Unencodable as error:
        raise DeviceError(f"device {name}: {key}: {error}") from None
    return text


def is_auto(section: Section) -> bool:
    """Return whether the host still has to determine the driver of a section."""
    return ("driver", AUTO) in section.keys


def build_sections(devices: Sequence[Mapping[str, object]]) -> tuple[Section, ...]:
    """Turn a playbook's devices into sections. Raises DeviceError, also for two of one name."""
    made = tuple(build_section(device) for device in devices)
    # to upsd, ups and UPS are the same
    names = [section.name.lower() for section in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeviceError(f"two devices are called {', '.join(twice)}. Give each UPS its own name")
    return made


def choose_delays(driver: str, vendor_id: str, given: Iterable[Pair]) -> tuple[Pair, ...]:
    """Return offdelay and ondelay for a UPS whose driver's own are wrong, as far as nobody has set them."""
    if driver != "usbhid-ups" or vendor_id.lower().removeprefix("0x") != CPS_VENDOR:
        return ()
    keys = {key.lower() for key, _value in given}
    # a longer offdelay may need a longer ondelay, too
    return () if "offdelay" in keys else tuple(pair for pair in CPS_DELAYS if pair[0] not in keys)


def add_delays(section: Section) -> Section:
    """Return a section of the inventory with the delays that its UPS needs, if the section shows that it is one of these."""
    keys = {key.lower(): value or "" for key, value in section.keys}
    return Section(
        section.name, (*section.keys, *choose_delays(keys["driver"], keys.get("vendorid", ""), section.keys))
    )


def spare_devices(devices: Sequence[Mapping[str, object]], powering: Iterable[str]) -> list[Mapping[str, object]]:
    """Return the devices, with sdorder -1 for a UPS that powers no machine which this host's shutdown brings down.

    `upsdrvctl shutdown` otherwise tells all UPSes of ups.conf to cut their power, a router's, too. A secondary goes down with this
    host and stays off unless its UPS cuts the power. powering: the UPSes that power secondaries.
    """
    needed = {name.lower() for name in powering}
    spared = []
    for device in devices:
        options = device.get("options")
        keys = {str(key).lower() for key in (*device, *(options if isinstance(options, Mapping) else ()))}
        is_spare = str(device.get("powervalue")) == "0" and str(device.get("name")).lower() not in needed
        spared.append({**device, "sdorder": -1} if is_spare and "sdorder" not in keys else device)
    return spared


def render_sections(made: Sequence[Section]) -> str:
    """Return sections as text: every value quoted, driver and port first, a newline at the end."""
    blocks = []
    for section in made:
        keys = sorted(section.keys, key=lambda pair: _RANKS.get(pair[0], len(_RANKS)))
        blocks.append(
            "\n".join([_quote_if_needed(f"[{section.name}]"), *(f"    {_format_pair(*pair)}" for pair in keys)]) + "\n"
        )
    return "\n".join(blocks)


def render_conf(conf: UpsConf) -> str:
    """Return a whole ups.conf as text. parse_ups_conf() reads the same from it, except that driver and port come first."""
    settings = "".join(f"{_format_pair(*pair)}\n" for pair in conf.settings)
    made = render_sections(tuple(conf.sections.values()))
    return f"{settings}\n{made}" if settings and made else settings + made


def _format_pair(key: str, value: str | None) -> str:
    return _quote_if_needed(key) if value is None else f"{_quote_if_needed(key)} = {grammar.quote_word(value)}"


def _quote_if_needed(word: str) -> str:
    """Return a word with quotes only if NUT needs them, because the enumerator recognizes no header or key in quotes."""
    return word if [line.words for line in grammar.parse_lines(f"{word}\n")] == [(word,)] else grammar.quote_word(word)


def parse_ups_conf(text: str) -> UpsConf:
    """Read a ups.conf as NUT does (common/upsconf.c). Lines that NUT skips are left out; grammar.find_problems() reports some."""
    settings: list[Pair] = []
    found: dict[str, list[Pair]] = {}
    keys = settings
    for line in grammar.parse_lines(text):
        first = line.words[0]
        if first.startswith("[") and first.endswith("]"):
            # NUT ignores the rest of the line
            keys = found.setdefault(first[1:-1], [])
        elif len(line.words) == 1:
            keys.append((first, None))
        elif len(line.words) >= 3 and line.words[1] == "=":
            keys.append((first, line.words[2]))
    return UpsConf(tuple(settings), {name: Section(name, tuple(pairs)) for name, pairs in found.items()})
