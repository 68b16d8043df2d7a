# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The directives that a user sets, one dict for each file: checked, merged over the role's own, and written.

All mistakes are found on the controller, before anything is written, and named with the variable that holds them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..base.spelling import read_truth, suggest
from . import grammar, ups_conf
from .directives import DEVICE, DIRECTIVES, NEWEST, TRUTHS, Directive
from .values import find_wrong_lines

LISTS: Mapping[str, str] = {"MONITOR": "extra_monitors", "LISTEN": "listen", "AT": "upssched_rules"}
"""Directives that are lists of lines -> the variable for them, without the name of the role."""

# A secondary has neither drivers nor upsd, is always a netclient, and must not cut the power of a UPS.
PRIMARY_ONLY = frozenset({
    *("MODE", "ALLOW_NO_DEVICE", "ALLOW_NOT_ALL_LISTENERS", "UPSD_OPTIONS", "POWEROFF_WAIT", "POWEROFF_QUIET"),
    "POWERDOWNFLAG",
})  # fmt: skip
FILES: Mapping[str, tuple[str, ...]] = {
    "nut_server": ("nut.conf", "ups.conf", "upsd.conf", "upsmon.conf", "upssched.conf"),
    "nut_client": ("nut.conf", "upsmon.conf", "upssched.conf"),
}
"""Role -> the files that it has a dict for."""

_UNSET: tuple[object, ...] = (None, "", [], {}, ())
# kinds of lines with several words -> the keys of a dict for them, with their defaults; None: required
_MEMBERS: Mapping[str, Mapping[str, Any]] = {
    "identity": {"nickname": None, "password": ""},
    "certhost": {"host": None, "certname": None, "certverify": True, "forcessl": True},
}


class SettingsError(ValueError):
    """Settings that can't be written; the message names the variable or file, and the directives."""


def variable_of(role: str, file: str) -> str:
    """Return the variable that holds the directives of a file."""
    return f"{role}_{file.replace('.', '_')}"


def places_of_directives(role: str) -> dict[str, str]:
    """Return where each directive is set, keyed by its name in lower case, also with the name of its file (upsd_debug_min)."""
    places: dict[str, str] = {}
    for file in reversed(FILES.get(role, ())):
        for name in DIRECTIVES[file]:
            place = f"{role}_{LISTS[name]}" if name in LISTS else f"{variable_of(role, file)}.{name}"
            places[f"{file.partition('.')[0]}_{name}".lower()] = place
            if name != "user":  # ambiguous, and rarely the drivers'
                places[name.lower()] = place
    return places


def merge_settings(given: Mapping[str, Any] | None, own: Mapping[str, Any], file: str, role: str) -> dict[str, Any]:
    """Return a role's own settings of a file, overridden by the user's. Unset directives are left out.

    Raises SettingsError for a directive that the file does not have, or a value of the wrong kind.
    """
    variable = variable_of(role, file)
    if given in _UNSET:
        given = {}
    if not isinstance(given, Mapping):
        raise SettingsError(f"{variable} must map directives of {file} to values")
    wrong = [words for name, value in given.items() for words in _find_mistakes(name, value, file, role)]
    if wrong:
        raise SettingsError(_join_sentences(variable, wrong))
    merged = {**own, **given}
    return {name: value for name, value in merged.items() if value not in _UNSET}


def write_settings(settings: Mapping[str, Any], file: str) -> str:
    """Return the lines of a file. Raises SettingsError for values that NUT could not read back."""
    lines: list[str] = []
    for name, value in settings.items():
        try:
            lines += _write_lines(name, value, file)
        except SettingsError as error:
            raise SettingsError(f"{file}: {error}") from None
    return "\n".join(lines)


def take_extra_lines(given: Mapping[str, Any] | None, file: str, role: str) -> str:
    """Return the user's extra lines for a file, below a comment that names their variable; "" if there are none.

    Raises SettingsError for a file that the role does not write.
    """
    variable = f"{role}_extra_lines"
    if given in _UNSET:
        return ""
    if not isinstance(given, Mapping):
        raise SettingsError(f"{variable} must map file names to text")
    files = (*FILES[role], "upsd.users") if role == "nut_server" else FILES[role]
    for name, text in given.items():
        if name not in files:
            raise SettingsError(f"{variable}: {name} is not one of {', '.join(files)}. {suggest(name, files)}".rstrip())
        if not isinstance(text, str):
            raise SettingsError(f"{variable}: {name} must be text, such as a block that begins with |")
    text = given.get(file, "").strip()
    return f"\n# {variable}\n{text}" if text else ""


def write_devices(devices: Sequence[Mapping[str, Any]], powering: Iterable[str] = ()) -> str:
    """Return the sections of ups.conf for a playbook's devices. Raises SettingsError.

    powering: the UPSes that power secondaries.
    """
    variable = "nut_server_devices"
    try:
        sections = tuple(map(ups_conf.add_delays, ups_conf.build_sections(ups_conf.spare_devices(devices, powering))))
    except ups_conf.DeviceError as error:
        raise SettingsError(f"{variable}: {error}") from None
    # only the host can resolve auto; its keys are most likely those of usbhid-ups
    likely = [
        replace(section, keys=(*section.keys[1:], ("driver", "usbhid-ups"))) if ups_conf.is_auto(section) else section
        for section in sections
    ]
    wrong = find_wrong_lines({"ups.conf": ups_conf.render_sections(likely)}, NEWEST)
    if wrong:
        raise SettingsError(_join_sentences(variable, [words.replace("ups.conf, ", "", 1) for words in wrong]))
    return ups_conf.render_sections(sections)


def _join_sentences(variable: str, sentences: Iterable[str]) -> str:
    return " ".join(f"{variable}: {words}" if words[-1] in ".?" else f"{variable}: {words}." for words in sentences)


def _find_mistakes(name: Any, value: Any, file: str, role: str) -> list[str]:
    if not isinstance(name, str):
        return [f"{name!r} is not a string. Put the directive in quotes"]
    wrong = _find_wrong_name(name, file, role)
    if wrong:
        return [wrong]
    try:
        lines = _write_lines(name, value, file)
    except SettingsError as error:
        return [str(error)]
    # without the place in the file, which the user does not see
    wrong_lines = find_wrong_lines({file: "".join(f"{line}\n" for line in lines)}, NEWEST)
    return [sentence.partition(": ")[2] for sentence in wrong_lines]


def _find_wrong_name(name: str, file: str, role: str) -> str:
    """Return why a dict can't have this key, and what to do; "" if it can."""
    known = DIRECTIVES[file]
    if name in known:
        if name in LISTS:
            return f"{name} lines are set by {role}_{LISTS[name]}. Use that"
        if name in PRIMARY_ONLY and role != "nut_server":
            return f"{name} is for a host with a UPS, not for a secondary. Leave it out"
        return ""
    spelled = {directive.lower(): directive for directive in known}.get(name.lower())
    if spelled:
        return f"{name} must be written {spelled}"
    return _find_right_place(name, file, role) or (
        f"{name} is not a directive of {file}."
        f" {suggest(name, known) or f'If your NUT knows it, put it into {role}_extra_lines'}"
    )


def _find_right_place(name: str, file: str, role: str) -> str:
    """Return where a directive of another file belongs; "" if no file has it."""
    for other in FILES["nut_server"]:
        if name in DIRECTIVES[other]:
            place = (
                f"Put it into {variable_of(role, other)}" if other in FILES[role] else "A secondary has no such file"
            )
            return f"{name} is a directive of {other}, not of {file}. {place}"
    if file == "ups.conf" and name in DEVICE:
        return (
            f"{name} is a key of a UPS, not a global directive. Put it into {role}_devices, beside the name of the UPS"
        )
    return ""


def _write_lines(name: str, value: Any, file: str) -> list[str]:
    """Return the lines of a directive, in the syntax of its file."""
    directive = DIRECTIVES[file].get(name)
    if directive is None:
        raise SettingsError(f"there is no directive {name}")
    if value in _UNSET:
        return []
    try:
        if directive.kind in (*TRUTHS, "present"):
            truth = read_truth(value)
            if directive.kind == "present" and not truth:
                return []
            value = str(truth).lower() if file == "nut.conf" else int(truth)
        if file == "nut.conf":
            return [_write_for_shell(name, value)]
        sign = " =" if file == "ups.conf" else ""
        return [f"{name}{sign} {grammar.join_words(row)}" for row in _split_rows(directive, value)]
    except (grammar.Unencodable, ValueError) as error:
        raise SettingsError(f"{name}: {error}") from None


def _write_for_shell(name: str, value: Any) -> str:
    """Return a line of nut.conf, quoted for both the shell and systemd."""
    text = _to_word(value)
    grammar.quote_word(text)  # raises Unencodable
    return f"{name}={shlex.quote(text)}"


def _split_rows(directive: Directive, value: Any) -> list[list[str]]:
    """Return the words after a directive, a list for each of its lines."""
    kind = directive.kind
    if kind in ("notifymsg", "notifyflag") and isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a type of event is not a string. Put OFF in quotes: YAML reads it as false")
        return [[key, _join_flags(text) if kind == "notifyflag" else _to_word(text)] for key, text in value.items()]
    if kind in _MEMBERS:
        rows = value if isinstance(value, Sequence) and isinstance(value[0], (list, tuple, Mapping)) else [value]
        return [_read_members(row, _MEMBERS[kind]) for row in rows]
    if isinstance(value, (list, tuple)) and isinstance(value[0], (list, tuple)):
        return [[_to_word(word) for word in row] for row in value]
    if isinstance(value, (list, tuple)):
        return [[_to_word(word) for word in value]]
    return [[_to_word(value)]]


def _join_flags(flags: Any) -> str:
    return "+".join(map(_to_word, flags)) if isinstance(flags, (list, tuple)) else _to_word(flags)


def _read_members(row: Any, members: Mapping[str, Any]) -> list[str]:
    """Return the words of a line that is given as a list, or as a dict with these keys. Booleans become 1 or 0."""
    if isinstance(row, Mapping):
        unknown = [str(key) for key in row if key not in members]
        if unknown:
            raise ValueError(
                f"{unknown[0]} is not one of {', '.join(members)}. {suggest(unknown[0], members)}".rstrip()
            )
        missing = [key for key, otherwise in members.items() if otherwise is None and row.get(key) in _UNSET]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        row = [
            int(read_truth(row.get(key, otherwise))) if otherwise is True else row.get(key) or otherwise
            for key, otherwise in members.items()
        ]
    words = row if isinstance(row, (list, tuple)) else [row]
    return [str(int(word)) if isinstance(word, bool) else _to_word(word) for word in words]


def _to_word(value: Any) -> str:
    """Return a value as NUT spells it. Booleans become yes and no, for SHUTDOWNEXIT and synchronous."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (str, int, float)):
        raise ValueError("the value is neither a string nor a number")
    return str(value)
