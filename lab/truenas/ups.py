# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TrueNAS's UPS settings: the model, its checks, and the NUT files that come out of it.

Nothing here touches a file or a process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]
#: A field, and what is wrong with it, in TrueNAS's words.
Complaint = tuple[str, str]

_MAX_LENGTH = 1024
_TYPE_WORDS = {  # type -> (classic schema, pydantic)
    str: ("Not a string", "Input should be a valid string"),
    int: ("Not an integer", "Input should be a valid integer"),
    bool: ("Not a boolean", "Input should be a valid boolean"),
}


@dataclass(frozen=True)
class Field:
    """One setting: its type, its default on a fresh system, and its limits."""

    name: str
    type: type
    default: str | int | bool | None
    nullable: bool = False
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    required: bool = False
    unlimited: bool = False


#: In the order of the real model: pydantic complains in this order.
FIELDS: tuple[Field, ...] = (
    Field("powerdown", bool, False),
    Field("rmonitor", bool, False),
    Field("nocommwarntime", int, None, nullable=True),
    Field("remoteport", int, 3493, minimum=1, maximum=65535),
    Field("shutdowntimer", int, 30),
    Field("hostsync", int, 15, minimum=0),
    Field("description", str, ""),
    Field("driver", str, ""),
    Field("extrausers", str, "", unlimited=True),
    Field("identifier", str, "ups", required=True),
    Field("mode", str, "MASTER", choices=("MASTER", "SLAVE")),
    Field("monpwd", str, "fixmepass", required=True),
    Field("monuser", str, "upsmon", required=True),
    Field("options", str, "", unlimited=True),
    Field("optionsupsd", str, "", unlimited=True),
    Field("port", str, ""),
    Field("remotehost", str, ""),
    Field("shutdown", str, "BATT", choices=("LOWBATT", "BATT")),
    Field("shutdowncmd", str, None, nullable=True),
)
_BY_NAME = {field.name: field for field in FIELDS}

DEFAULTS: Settings = {field.name: field.default for field in FIELDS}


def entry(settings: Settings) -> dict[str, Any]:
    """What ups.config answers: the settings and the two read-only members."""
    return {"id": 1, **settings, "complete_identifier": complete_identifier(settings)}


def complete_identifier(settings: Settings) -> str:
    """The UPS as upsmon knows it. An IPv6 address is not bracketed: TrueNAS doesn't either, and upsmon then fails."""
    host = "localhost" if settings["mode"] == "MASTER" else settings["remotehost"]
    return f"{settings['identifier']}@{host}:{settings['remoteport']}"


# --- checks ----------------------------------------------------------------------------------------------------------


def check_schema(values: Settings, *, classic: bool) -> tuple[dict[str, Any], list[Complaint]]:
    """Check what came in by itself. Returns the values as they will be stored, and the complaints."""
    return _check_classic(values) if classic else (dict(values), _check_pydantic(values))


def _check_pydantic(values: Settings) -> list[Complaint]:
    complaints = []
    for field in FIELDS:
        if field.name in values and (message := _pydantic_complaint(field, values[field.name])):
            complaints.append((field.name, message))
    complaints += [(name, "Extra inputs are not permitted") for name in values if name not in _BY_NAME]
    return complaints


def _pydantic_complaint(field: Field, value: Any) -> str | None:
    if value is None and field.nullable:
        return None
    if field.choices:
        wanted = " or ".join(f"'{choice}'" for choice in field.choices)
        return None if value in field.choices else f"Input should be {wanted}"
    if type(value) is not field.type:
        return _TYPE_WORDS[field.type][1]
    return _pydantic_length(field, value) if isinstance(value, str) else _pydantic_range(field, value)


def _pydantic_length(field: Field, value: str) -> str | None:
    if field.required and not value:
        return "String should have at least 1 character"
    if not field.unlimited and len(value) > _MAX_LENGTH:
        return f"String should have at most {_MAX_LENGTH} characters"
    return None


def _pydantic_range(field: Field, value: Any) -> str | None:
    if field.minimum is not None and value < field.minimum:
        return f"Input should be greater than or equal to {field.minimum}"
    if field.maximum is not None and value > field.maximum:
        return f"Input should be less than or equal to {field.maximum}"
    return None


def _check_classic(values: Settings) -> tuple[dict[str, Any], list[Complaint]]:
    """Two passes: the first stops at its first complaint, the second looks at ranges and reports them all."""
    cleaned = {}
    for name, value in values.items():
        field = _BY_NAME.get(name)
        if field is None:
            return {}, [(name, "Field was not expected")]
        if field.type is int and isinstance(value, str) and re.fullmatch(r"-?\d+", value):
            value = int(value)  # noqa: PLW2901
        if message := _classic_complaint(field, value):
            return {}, [(name, message)]
        cleaned[name] = value
    return cleaned, [
        (name, f"Should be {_classic_range(_BY_NAME[name])}")
        for name, value in cleaned.items()
        if not _in_range(_BY_NAME[name], value)
    ]


def _classic_complaint(field: Field, value: Any) -> str | None:
    if value is None:
        return None if field.nullable else "null not allowed"
    if type(value) is not field.type:
        return _TYPE_WORDS[field.type][0]
    if field.choices and value not in field.choices:
        return f"Invalid choice: {value}"
    if field.required and not value:
        return "Empty value not allowed"
    return None


def _in_range(field: Field, value: Any) -> bool:
    if value is None:
        return True
    return (field.minimum is None or value >= field.minimum) and (field.maximum is None or value <= field.maximum)


def _classic_range(field: Field) -> str:
    if field.maximum is None:
        return f"greater than or equal to {field.minimum}"
    return f"between {field.minimum} and {field.maximum}"


def check_settings(settings: Settings) -> list[Complaint]:
    """Check the settings as they would stand after the update: the same in every release.

    A trailing newline in `identifier` passes, as it does in TrueNAS, and breaks upsmon.conf.
    """
    complaints = []
    if settings["driver"]:  # the stand-in has no drivers, so none is in its list
        complaints.append(("driver", "Driver selected does not match local machine's driver list"))
    if not re.search(r"^[a-z0-9\.\-_]+$", settings["identifier"], re.IGNORECASE):
        complaints.append(("identifier", 'Use alphanumeric characters, ".", "-" and "_"'))
    complaints += [
        (name, "Spaces or number signs are not allowed.")
        for name in ("monpwd", "monuser")
        if re.search("[ #]", settings[name])
    ]
    needed = ("port", "driver") if settings["mode"] == "MASTER" else ("remotehost",)
    complaints += [(name, "This field is required") for name in needed if not settings[name]]
    return complaints


# --- NUT's files -----------------------------------------------------------------------------------------------------

_NOTIFICATIONS = ("ONBATT", "LOWBATT", "ONLINE", "COMMBAD", "COMMOK", "REPLBATT", "NOCOMM", "FSD", "SHUTDOWN")
_POWERDOWN_FLAG = "/etc/killpower"


def render(settings: Settings) -> dict[str, str]:
    """NUT's files of a SLAVE, by name: what TrueNAS leaves in /etc/nut when it starts the service.

    Unquoted and unescaped on purpose: what breaks TrueNAS's upsmon must break this one.
    """
    if settings["mode"] != "SLAVE":
        raise ValueError("mode MASTER: this stand-in has no UPS of its own, set mode SLAVE")
    return {
        "nut.conf": "MODE=netclient\n",
        "upsmon.conf": _upsmon_conf(settings),
        "upssched.conf": _upssched_conf(settings),
    }


def _upsmon_conf(settings: Settings) -> str:
    user = re.sub(r"([#$])", r"\\\1", settings["monuser"])
    lines = [
        f"MONITOR {complete_identifier(settings)} 1 {user} {settings['monpwd']} {settings['mode']}",
        "NOTIFYCMD /usr/sbin/upssched",
        *(f"NOTIFYFLAG {name} SYSLOG+EXEC" for name in _NOTIFICATIONS),
        f'SHUTDOWNCMD "{settings["shutdowncmd"] or "/sbin/shutdown -P now"}"',
    ]
    if settings["powerdown"]:
        lines.append(f"POWERDOWNFLAG {_POWERDOWN_FLAG}")
    lines.append(f"HOSTSYNC {settings['hostsync']}")
    if settings["nocommwarntime"]:
        lines.append(f"NOCOMMWARNTIME {settings['nocommwarntime']}")
    return "\n".join(lines) + "\n"


def _upssched_conf(settings: Settings) -> str:
    rules = [
        ("NOCOMM", "EXECUTE NOTIFY-NOCOMM"),
        ("COMMBAD", "START-TIMER NOTIFY-COMMBAD 10"),
        ("COMMOK", "CANCEL-TIMER NOTIFY-COMMBAD COMMOK"),
        *((name, f"EXECUTE NOTIFY-{name}") for name in ("FSD", "LOWBATT", "ONBATT", "ONLINE", "REPLBATT", "SHUTDOWN")),
    ]
    if settings["shutdown"] == "BATT":
        rules.append(("ONBATT", f"START-TIMER SHUTDOWN {settings['shutdowntimer']}"))
        rules.append(("ONLINE", "CANCEL-TIMER SHUTDOWN"))
    else:
        rules.append(("LOWBATT", "EXECUTE SHUTDOWN"))
    return "\n".join(
        [
            'CMDSCRIPT   "/usr/bin/sudo /usr/local/bin/custom-upssched-cmd"',
            "PIPEFN      /var/run/nut/upssched.pipe",
            "LOCKFN      /var/run/nut/upssched.lock",
            "",
            *(f"AT {name:<8} * {what}" for name, what in rules),
            "",
        ]
    )


# --- what upssched's command decides ---------------------------------------------------------------------------------


def must_shut_down(event: str, upsc_output: str | None) -> bool:
    """Whether an upssched event means `upsmon -c fsd`, as ups.upssched_event decides it.

    `upsc_output` is None when upsc failed: a server that cannot be asked does not stop the shutdown.
    """
    if event.upper() != "SHUTDOWN":
        return False
    output = upsc_output or ""
    if re.search(r"ups\.test\.result:\s*TestInProgress", output):
        return False
    status = re.search(r"^ups\.status: (.*)", output, re.MULTILINE)
    return status is None or "OL" not in status[1].upper()
