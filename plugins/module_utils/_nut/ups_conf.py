# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ups.conf as data: what a playbook says of its UPSes, rendered as NUT reads it, and read back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Union

from . import parseconf

# A name is also the instance of a systemd unit (nut-driver@NAME). The enumerator turns anything else into an MD5 sum.
NAME = re.compile(r"[A-Za-z0-9_-]+")
KEY = re.compile(r"[A-Za-z0-9_.-]+")

Value = Union[str, int, float, bool]


class DeviceError(ValueError):
    """A device can't be written into ups.conf as it was given; the message names the device and the key."""


@dataclass(frozen=True)
class Section:
    """One [name] of ups.conf. A value of None is a bare flag. The order of keys is the order in the file."""

    name: str
    keys: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class UpsConf:
    """A whole ups.conf: what stands before the first section, and the sections by name."""

    settings: tuple[tuple[str, str | None], ...]
    sections: Mapping[str, Section]


def section(device: Mapping[str, object]) -> Section:
    """Turn a device of a playbook into a section.

    device: name, driver (default usbhid-ups), port (default auto), desc, and options, which maps further keys of NUT
    and the driver to values: true is a bare flag, false and None leave the key out. Its powervalue is for upsmon.conf.
    Raises DeviceError.
    """
    known = {"name", "driver", "port", "desc", "options", "powervalue"}
    name = str(device.get("name") or "")
    unknown = sorted(set(device) - known)
    if unknown:
        raise DeviceError(
            f"device {name or '?'}: unknown key {', '.join(unknown)}. A device has {', '.join(sorted(known))}; "
            "keys of the driver go under options"
        )
    if not NAME.fullmatch(name) or name == "default":
        raise DeviceError(
            f"device {name!r}: a name is made of letters, digits, hyphen and underscore, and is not 'default'"
        )
    options = device.get("options") or {}
    if not isinstance(options, Mapping):
        raise DeviceError(f"device {name}: options must map keys to values")
    for key in ("driver", "port", "desc", "name"):
        if key in options:
            raise DeviceError(f"device {name}: {key} belongs to the device itself, not under options")
    # driver and port come first: upsdrvctl 2.8.0 looks only at the line that makes its entry
    pairs: list[tuple[str, object]] = [
        ("driver", device.get("driver") or "usbhid-ups"),
        ("port", device.get("port") or "auto"),
        ("desc", device.get("desc")),
        *options.items(),
    ]
    keys: list[tuple[str, str | None]] = []
    for key, value in pairs:
        if not KEY.fullmatch(str(key)):
            raise DeviceError(f"device {name}: {key!r} is no key of ups.conf")
        if value is None or value is False:
            continue
        keys.append((str(key), None if value is True else _text(name, str(key), value)))
    return Section(name, tuple(keys))


def _text(name: str, key: str, value: object) -> str:
    if not isinstance(value, (str, int, float)):
        raise DeviceError(f"device {name}: {key} must be a text, a number, or true for a bare flag")
    text = str(value)
    try:
        parseconf.encode(text)
    except parseconf.Unencodable as error:
        raise DeviceError(f"device {name}: {key}: {error}") from None
    return text


def sections(devices: Sequence[Mapping[str, object]]) -> tuple[Section, ...]:
    """Turn a playbook's devices into sections. Raises DeviceError, also for two of one name."""
    made = tuple(section(device) for device in devices)
    # upsd makes no difference between ups and UPS
    names = [one.name.lower() for one in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeviceError(f"two devices are called {', '.join(twice)}. Each UPS needs a name of its own")
    return made


def render(made: Sequence[Section]) -> str:
    """Write sections as NUT reads them: every value quoted, a newline at the end."""
    blocks = []
    for one in made:
        lines = [f"[{one.name}]"]
        lines += [
            f"    {key}" if value is None else f"    {key} = {parseconf.encode(value)}" for key, value in one.keys
        ]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def parse(text: str) -> UpsConf:
    """Read a ups.conf as NUT does. What NUT would skip is left out; parseconf.problems() tells of it."""
    settings: list[tuple[str, str | None]] = []
    found: dict[str, list[tuple[str, str | None]]] = {}
    keys = settings
    for line in parseconf.parse(text):
        first = line.words[0]
        if len(line.words) == 1 and first.startswith("[") and first.endswith("]"):
            keys = found.setdefault(first[1:-1], [])
        elif len(line.words) >= 3 and line.words[1] == "=":
            keys.append((first, line.words[2]))
        else:
            keys.append((first, None))
    return UpsConf(tuple(settings), {name: Section(name, tuple(pairs)) for name, pairs in found.items()})
