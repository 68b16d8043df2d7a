# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The environment variables of the container: what they mean, and what is wrong with their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..conf import grammar, ups_conf, values
from ..usb.policy import ABSENT, NAME_LIMIT

# variable -> default, "" for none
DEFAULTS = {
    "UPS_NAME": "my-ups",
    "SCAN_INTERVAL": "60",
    "DEBUG": "0",
    "TZ": "UTC",
    "ABSENT": "dummy",
    "LISTEN": "0.0.0.0",
    "PORT": "3493",
    "API_USER": "monitor",
    "API_PASSWORD": "",
    "API_PASSWORD_FILE": "",
}
SECRET = "run/secrets/api_password"  # noqa: S105 - a path
"""The password of API_USER, if it is given to the container as a secret of this name."""
INTERVALS = (1, 3600)
SECRET_BYTES = 4096
_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class SettingsError(Exception):
    """Some variables have values that can't be used. The message has a line for each."""


@dataclass(frozen=True)
class ContainerSettings:
    """What the environment sets."""

    ups_name: str  # the name of the first UPS
    scan_interval: int  # seconds between two looks at the bus, unless the kernel reports a change
    has_debug: bool  # whether nut-hotplug logs the reasons for its decisions
    timezone: str
    absent: str  # what answers for a UPS that is not plugged in: "dummy" or "keep", as in the policy of nut-hotplug
    listen: str  # the address of upsd
    port: int
    user: str  # of upsd
    password: str  # "" if nobody may log in


def read_settings(environment: Mapping[str, str], root: Path = Path("/")) -> ContainerSettings:
    """Return the settings. An empty variable counts as not set. Raise SettingsError with all problems."""
    given = {name: environment.get(name) or default for name, default in DEFAULTS.items()}
    problems: list[str] = []

    def refuse(name: str, why: str) -> None:
        shown = "" if "PASSWORD" in name else f"={given[name]}"
        problems.append(f"{name}{shown}: {why}")

    name = given["UPS_NAME"]
    if not ups_conf.NAME.fullmatch(name) or name == "default" or len(name) > NAME_LIMIT:
        refuse(
            "UPS_NAME",
            f"must have 1 to {NAME_LIMIT} letters, digits, hyphens and underscores, and not be 'default'",
        )
    least, most = INTERVALS
    interval = _read_whole(given["SCAN_INTERVAL"])
    if not least <= interval <= most:
        refuse("SCAN_INTERVAL", f"must be a number of seconds from {least} to {most}")
    if given["DEBUG"].lower() not in _TRUTH:
        refuse("DEBUG", "must be 1 or 0")
    zones = root / "usr/share/zoneinfo"
    if ".." in given["TZ"] or not (zones / given["TZ"].lstrip("/")).is_file():
        refuse("TZ", "is not a time zone. Use a name such as Europe/Berlin")
    if given["ABSENT"] not in ABSENT:
        refuse("ABSENT", f"must be {' or '.join(ABSENT)}")
    if not values.is_listen((given["LISTEN"], given["PORT"])):
        refuse("LISTEN", f"with PORT={given['PORT']} is not an address and a port from 1 to 65535")
    password = given["API_PASSWORD"]
    if password and given["API_PASSWORD_FILE"]:
        refuse("API_PASSWORD_FILE", "API_PASSWORD is set, too. Remove one of them")
    elif not password:
        try:
            password = _read_secret(given["API_PASSWORD_FILE"], root)
        except (OSError, ValueError) as error:
            refuse("API_PASSWORD_FILE", f"can't be read: {getattr(error, 'strerror', None) or error}")
    if password and (why := grammar.find_password_problem(password)):
        refuse("API_PASSWORD", f"the password {why}")
    if why := grammar.find_user_problem(given["API_USER"]):
        refuse("API_USER", f"the user name {why}")
    if problems:
        raise SettingsError("\n".join(problems))
    return ContainerSettings(
        ups_name=name,
        scan_interval=interval,
        has_debug=_TRUTH[given["DEBUG"].lower()],
        timezone=given["TZ"],
        absent=given["ABSENT"],
        listen=given["LISTEN"],
        port=int(given["PORT"]),
        user=given["API_USER"],
        password=password,
    )


def _read_whole(text: str) -> int:
    """Return a whole number; -1 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1


def _read_secret(path: str, root: Path) -> str:
    """Return the password in a file, or in the secret of the usual name; "" if there is neither. Raise OSError, ValueError."""
    place = root / path.lstrip("/") if path else root / SECRET
    if not path and not place.exists():
        return ""
    with place.open("rb") as file:
        return file.read(SECRET_BYTES).decode().rstrip("\r\n")
