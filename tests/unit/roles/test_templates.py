# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles' templates make of an inventory, read back as NUT reads it; rendered by Ansible itself, in one play."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut import inventory as the_inventory
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import (
    consistency,
    directives,
    grammar,
    ups_conf,
    upsd,
    upsmon,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import settings as settings_library
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.upsd import User
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.upsmon import Monitor
from ansible_collections.homelab.nut.tests.unit.support.plays import make_role, run_roles

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[3]
ROLES = ("nut_server", "nut_client")

ODD = "UPS #1 \"rack\" \\ = [x] {{ not_a_variable }} 'q' $HOME `id`"

PATH, WORD = f"/{ODD}", 'u"#\\='

# For each directive: what its variable is set to, and the words that NUT reads behind it, on one line or on several.
Told = tuple[Any, list[str]]
ODD_SETTINGS: dict[str, dict[str, Told]] = {
    "nut.conf": {
        "MODE": ("standalone", ["standalone"]),
        "ALLOW_NO_DEVICE": (True, ["true"]),
        "ALLOW_NOT_ALL_LISTENERS": (False, ["false"]),
        "UPSD_OPTIONS": (ODD, [ODD]),
        "UPSMON_OPTIONS": ("-D", ["-D"]),
        "POWEROFF_WAIT": ("7m", ["7m"]),
        "POWEROFF_QUIET": ("yes", ["true"]),
        "NUT_DEBUG_LEVEL": (2, ["2"]),
        "NUT_DEBUG_PID": (True, ["true"]),
        "NUT_DEBUG_PROCNAME": ("on", ["true"]),
        "NUT_DEBUG_SYSLOG": ("stderr", ["stderr"]),
        "NUT_IGNORE_CHECKPROCNAME": (True, ["true"]),
        "NUT_QUIET_INIT_UPSNOTIFY": (True, ["true"]),
    },
    "ups.conf": {
        "maxretry": (8, ["8"]),
        "retrydelay": (9, ["9"]),
        "pollinterval": (4, ["4"]),
        "maxstartdelay": (91, ["91"]),
        "synchronous": (True, ["yes"]),  # a bare yes in YAML
        "driverpath": (PATH, [PATH]),
        "user": (WORD, [WORD]),
        "group": (WORD, [WORD]),
        "statepath": (PATH, [PATH]),
        "debug_min": (1, ["1"]),
        "LIBUSB_DEBUG": (3, ["3"]),
    },
    "upsd.conf": {
        "MAXAGE": (33, ["33"]),
        "TRACKINGDELAY": (34, ["34"]),
        "MAXCONN": (35, ["35"]),
        "ALLOW_NO_DEVICE": (True, ["1"]),
        "ALLOW_NOT_ALL_LISTENERS": ("no", ["0"]),
        "STATEPATH": (PATH, [PATH]),
        "DATAPATH": ("/a b", ["/a b"]),
        "CERTPATH": ("/c #d", ["/c #d"]),
        "CERTIDENT": ({"nickname": ODD, "password": 'p"#\\'}, [ODD, 'p"#\\']),
        "DISABLE_WEAK_SSL": (False, ["0"]),
        "DEBUG_MIN": (2, ["2"]),
    },
    "upsmon.conf": {
        "MINSUPPLIES": (2, ["2"]),
        "HOSTSYNC": (46, ["46"]),
        "FINALDELAY": (47, ["47"]),
        "SHUTDOWNCMD": (ODD, [ODD]),
        "SHUTDOWNEXIT": (False, ["no"]),
        "POWERDOWNFLAG": (PATH, [PATH]),
        "POLLFREQ": (9, ["9"]),
        "POLLFREQALERT": (8, ["8"]),
        "POLLFAIL_LOG_THROTTLE_MAX": (5, ["5"]),
        "DEADTIME": (28, ["28"]),
        "OFFDURATION": (0, ["0"]),
        "OVERDURATION": (11, ["11"]),
        "OBLBDURATION": (12, ["12"]),
        "ALARMCRITICAL": (False, ["0"]),
        "RBWARNTIME": (13, ["13"]),
        "NOCOMMWARNTIME": (14, ["14"]),
        "NOTIFYCMD": (ODD, [ODD]),
        "NOTIFYMSG": ({"ONBATT": ODD, "OFF": "%s"}, ["ONBATT", ODD, "OFF", "%s"]),
        "NOTIFYFLAG": (
            {"ONBATT": ["EXEC", "WALL"], "NOCOMM": ["IGNORE"], "FSD": "SYSLOG+WALL"},
            ["ONBATT", "EXEC+WALL", "NOCOMM", "IGNORE", "FSD", "SYSLOG+WALL", "ONLINE", "SYSLOG+WALL+EXEC"],
        ),
        "RUN_AS_USER": (WORD, [WORD]),
        "CERTPATH": (PATH, [PATH]),
        "CERTIDENT": ({"nickname": "me #1"}, ["me #1", ""]),
        "CERTHOST": (
            [{"host": "a b", "certname": ODD}, {"host": "c", "certname": "d", "certverify": False, "forcessl": "no"}],
            ["a b", ODD, "1", "1", "c", "d", "0", "0"],
        ),
        "CERTVERIFY": ("true", ["1"]),
        "FORCESSL": (False, ["0"]),
        "DEBUG_MIN": (3, ["3"]),
    },
    "upssched.conf": {
        "DEBUG_MIN": (4, ["4"]),
        "CMDSCRIPT": (ODD, [ODD]),
        "PIPEFN": ("/run/a pipe", ["/run/a pipe"]),
        "LOCKFN": ('/run/a "lock"', ['/run/a "lock"']),
        "AT": (
            [
                {"notifytype": "ONBATT", "command": "START-TIMER", "name": "early-1", "seconds": 30, "ups": "ups"},
                {"notifytype": "ONLINE", "command": "CANCEL-TIMER", "name": "early-1", "then": "back.1", "ups": "*"},
                {"notifytype": "ONLINE", "command": "EXECUTE", "name": "online", "ups": "ups@else:1"},
            ],
            [
                *("ONBATT", "MONITORED", "START-TIMER", "early-1", "30"),
                *("ONLINE", "*", "CANCEL-TIMER", "early-1", "back.1"),
                *("ONLINE", "ups@else:1", "EXECUTE", "online"),
            ],
        ),
    },
}
FILES = {
    "nut_server": ("nut.conf", "ups.conf", "upsd.conf", "upsd.users", "upsmon.conf", "upssched.conf"),
    "nut_client": ("nut.conf", "upsmon.conf", "upssched.conf"),
}


# A user's own text for each file
EXTRA = {
    "nut.conf": "OF_ANOTHER=1\n",
    "ups.conf": "retrydelay = 78",
    "upsd.conf": "MAXAGE 79\n",
    "upsd.users": "actions = FSD",
    "upsmon.conf": "RBWARNTIME 80",
    "upssched.conf": "AT ONBATT * EXECUTE x\n\n",
}


def of(role: str, file: str) -> list[str]:
    """List the directives of a file that a role has variables for."""
    return [name for name in ODD_SETTINGS[file] if role == "nut_server" or name not in settings_library.PRIMARY_ONLY]


def odd(role: str) -> dict[str, Any]:
    """Give every directive its odd value, and each file an extra."""
    found: dict[str, Any] = {f"{role}_extra_lines": {file: EXTRA[file] for file in FILES[role]}}
    for file in set(FILES[role]) - {"upsd.users"}:
        found[settings_library.variable_of(role, file)] = {
            name: ODD_SETTINGS[file][name][0] for name in of(role, file) if name != "AT"
        }
    found[f"{role}_upssched_rules"] = ODD_SETTINGS["upssched.conf"]["AT"][0]
    return found


# One primary a case, and the secondaries that hang on it.
PRIMARIES: dict[str, dict[str, Any]] = {
    "bare": {},
    "full": {
        "nut_server_address": "2001:db8::1",
        "nut_server_port": 1234,
        "nut_server_listen": [{"address": "127.0.0.1"}, {"address": "2001:db8::1", "port": 999}],
        "nut_server_devices": [
            {
                "name": "left",
                "desc": ODD,
                "powervalue": 2,
                "options": {"pollonly": True, "serial": "000123", "override.battery.charge.low": 25, "ignorelb": False},
            },
            {"name": "right", "driver": "dummy-ups", "port": "right.dev", "powervalue": 0},
        ],
        "nut_server_upsmon_user": "root",
        "nut_server_password": "a'b!$%&*()+,-./:;<>?@[]^_`{|}~",
        "nut_server_nut_conf": {"POWEROFF_WAIT": "10m"},
        "nut_server_ups_conf": {"maxretry": 4, "retrydelay": 6, "pollinterval": 3},
        "nut_server_upsd_conf": {"MAXAGE": 25},
        "nut_server_upsmon_conf": {
            "MINSUPPLIES": 2,
            "HOSTSYNC": 45,
            "SHUTDOWNCMD": '/bin/sh -c "echo #1; shutdown -h +0"',
            "POWERDOWNFLAG": "/run/nut/kill power",
            "POLLFREQ": 7,
            "POLLFREQALERT": 6,
            "DEADTIME": 21,
            "RBWARNTIME": 100,
            "NOCOMMWARNTIME": 200,
        },
    },
    "less": {"nut_server_ups_conf": {"maxretry": None, "retrydelay": ""}, "nut_server_upsmon_conf": {"HOSTSYNC": None}},
    "margin": {"nut_server_shutdown_margin": 20, "nut_server_gate": {"enabled": False}},
    "fixed": {"nut_server_upsmon_conf": {"FINALDELAY": 7}},
    "linux": {"nut_server_gate": {"enabled": False}},
    "odd": {
        **odd("nut_server"),
        "nut_server_devices": [
            {
                "name": "ups",
                "powervalue": 1,
                "vendorid": "051d",
                "product": ODD,
                "pollfreq": 12,
                "ignorelb": True,
                "pollonly": False,
                "default": {"battery.charge.low": 30},
                "override": {"ups.mfr": ODD},
            }
        ],
        "nut_server_users": [
            {"name": "viewer"},
            {
                "name": "admin",
                "password": "a'b\"c",
                "actions": ["SET", "FSD"],
                "instcmds": ["ALL"],
                "upsmon": "primary",
            },
            {"name": "guest", "instcmds": ["beeper.mute", "test.battery.start"], "upsmon": "secondary"},
        ],
        "nut_server_extra_monitors": [
            {"system": "far@[2001:db8::2]:5", "powervalue": 1, "username": "u", "password": "p'", "type": "primary"},
            {"system": "far@away", "username": "u", "password": "p"},
        ],
    },
    "safe": {"nut_server_tls": {"enabled": True}},
    "far": {},
    "timed": {
        "nut_server_port": 1,
        "nut_server_devices": [{"name": "left"}, {"name": "right"}],
        "nut_server_upssched_rules": [
            {"notifytype": "ONBATT", "ups": "right", "command": "START-TIMER", "name": "early", "seconds": 300}
        ],
    },
    "twins": {"nut_server_devices": [{"name": "ups"}, {"name": "ups"}]},
    "control": {"nut_server_devices": [{"name": "ups", "desc": "two\nlines"}]},
    "blank": {"nut_server_password": "with blank"},
    "own": {"nut_server_users": [{"name": "monitor"}]},
    "taken": {"nut_server_users": [{"name": "nas4"}]},
    "double": {"nut_server_users": [{"name": "a"}, {"name": "a"}]},
    "slash": {"nut_server_users": [{"name": "a/b"}]},
    "broken": {"nut_server_users": [{"name": "a", "password": "b#c"}]},
    "mute": {"nut_server_extra_monitors": [{"system": "far@away", "username": "u", "password": "a#b=c"}]},
    "unseen": {
        "nut_server_upssched_rules": [{"notifytype": "ONBATT", "command": "EXECUTE", "name": "x", "ups": "usp"}]
    },
    "unheard": {
        "nut_server_upssched_rules": [{"notifytype": "ONBATT", "command": "EXECUTE", "name": "x"}],
        "nut_server_upsmon_conf": {"NOTIFYFLAG": {"ONBATT": ["SYSLOG"]}},
    },
    "truth": {"nut_server_upsmon_conf": {"NOTIFYMSG": {False: "x"}}},
    "typo": {"nut_server_upsmon_conf": {"OFDURATION": 30, "OFFDURATION": "soon"}},
    "typo_device": {"nut_server_devices": [{"name": "ups", "ofdelay": 30}]},
    "typo_file": {"nut_server_extra_lines": {"upsmon": "X"}},
    "kind": {"nut_server_devices": [{"name": "ups", "driver": "auto", "offdelay": "soon"}]},
}
# of these the files are made, and the host refuses them
UNFIT = {
    "mute": "upsmon.conf: MONITOR far@away: the password contains a '#' and a '='",
    "mute2": "upsmon.conf: MONITOR far@away: the password contains a '#' and a '='",
}
BAD = {
    "twins": "nut_server_devices: two devices are called ups",
    "control": "nut_server_devices: device ups: desc: character 4 (U+000A) is a control character",
    "blank": "blank: nut_server_password can't be used: it holds a space",
    "own": "nut_server_users: monitor is already the user of",
    "taken": "nut_server_users: nas4 is already the user of",
    "double": "nut_server_users: a is already the user of",
    "slash": "slash: 'a/b' can't be a user: the user name contains a slash",
    "broken": "broken: the password of a in nut_server_users can't be used: it contains a '#'",
    "unseen": "nut_server_upssched_rules: ONBATT EXECUTE x: this host monitors no UPS called usp",
    "unheard": "nut_server_upssched_rules: ONBATT EXECUTE x: NOTIFYFLAG of ONBATT is SYSLOG, and without EXEC upssched is not called",
    "truth": "nut_server_upsmon_conf: NOTIFYMSG: a type of event is not a string. Put OFF in quotes",
    "typo": "nut_server_upsmon_conf: OFDURATION is not a directive of upsmon.conf. Did you mean OFFDURATION?"
    " nut_server_upsmon_conf: OFFDURATION is 'soon', must be a whole number",
    "typo_device": "nut_server_devices: device ups: there is no key ofdelay. Did you mean offdelay?",
    "typo_file": "nut_server_extra_lines: upsmon is not one of nut.conf, ups.conf, upsd.conf, upsmon.conf, upssched.conf, upsd.users."
    " Did you mean upsmon.conf?",
    "kind": "nut_server_devices: [ups]: offdelay is 'soon', must be a whole number of seconds",
}
# What the lookup homelab.nut.certificate tells.
TLS = {
    "__nut_server_certificate": {
        "ca": "a",
        "certificate": "b",
        "key": "c",
        "nickname": "safe_1",
        "path": "/etc/nut/tls/server",
    },
    "__nut_client_certificate": {"ca": "a", "path": "/etc/nut/tls/client"},
}
SECONDARIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "nas": ("truenas", "full", {"nut_client_ups": "right"}),
    "media": ("ups_clients", "full", {"nut_client_shutdown_time": 90, "nut_client_user": "media-1"}),
    "desk": ("ups_clients", "full", {"nut_client_shutdown_time": 10, "nut_client_password": "x'y;z"}),
    "nas2": ("truenas", "margin", {}),
    "nas3": ("truenas", "fixed", {"nut_client_shutdown_time": 300}),
    "nas4": ("truenas", "taken", {}),
    "safe2": ("ups_clients", "safe", {}),
    "frank": ("ups_clients", "safe", {"nut_client_tls": False}),
    "odd2": (
        "ups_clients",
        "far",
        {
            **odd("nut_client"),
            "nut_client_powervalue": 2,
            "nut_client_extra_monitors": [{"system": "far@away", "username": "u", "password": "p"}],
        },
    ),
    "mute2": (
        "ups_clients",
        "far",
        {"nut_client_extra_monitors": [{"system": "far@away", "username": "u", "password": "a#b=c"}]},
    ),
    "desk2": (
        "ups_clients",
        "linux",
        {
            "nut_client_upsmon_conf": {
                "POLLFREQ": 8,
                "POLLFREQALERT": 9,
                "DEADTIME": 27,
                "RBWARNTIME": 100,
                "NOCOMMWARNTIME": 200,
                "HOSTSYNC": 20,
                "FINALDELAY": 3,
                "SHUTDOWNCMD": '/bin/sh -c "echo #1"',
            },
        },
    ),
}

# The role as it is, but for its tasks: the files are put into a fact instead of onto a host.
TASKS = """\
- block:
    - ansible.builtin.set_fact:
        seen:
          rendered: "{{ FILES }}"
  rescue:
    - ansible.builtin.set_fact:
        seen:
          refused: "{{ ansible_failed_result.msg }}"
"""


def inventory() -> dict[str, Any]:
    """PRIMARIES and SECONDARIES as an inventory."""
    groups: dict[str, Any] = {"pve": {"hosts": PRIMARIES}, "truenas": {"hosts": {}}, "ups_clients": {"hosts": {}}}
    for name, (group, primary, variables) in SECONDARIES.items():
        groups[group]["hosts"][name] = {"nut_client_primary": primary, **variables}
    return groups


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the play saw, by host: `rendered` holds its files, or `refused` why there are none."""
    root = tmp_path_factory.mktemp("site")
    for name in ROLES:
        make_role(root, name, TASKS.replace("FILES", f"__{name}_files"))
    roles = {"pve": "nut_server", "truenas:ups_clients": "nut_client"}
    found: dict[str, dict[str, Any]] = run_roles(root, roles, inventory(), "-e", json.dumps(TLS))
    for host in found.values():
        host["passwords"] = {
            path.name: path.read_text().strip() for path in (root / ".homelab-nut" / "passwords").glob("[!.]*")
        }
    return found


GOOD = [name for name in PRIMARIES if name not in {**BAD, **UNFIT}]
LINUX = [
    name for name, (group, _primary, _variables) in SECONDARIES.items() if group == "ups_clients" and name not in UNFIT
]


@pytest.mark.parametrize("host", [*GOOD, *LINUX])
def test_files_that_nut_takes(rendered: dict[str, dict[str, Any]], host: str) -> None:
    files = rendered[host]["rendered"]
    assert set(files) == set(FILES["nut_client" if host in LINUX else "nut_server"])
    assert consistency.find_inconsistencies(files) == []
    assert all(text.startswith("# Written by Ansible") for text in files.values())


@pytest.mark.parametrize(("host", "said"), UNFIT.items())
def test_files_with_a_login_that_nut_cannot_use(rendered: dict[str, dict[str, Any]], host: str, said: str) -> None:
    (wrong,) = consistency.find_inconsistencies(rendered[host]["rendered"])
    assert wrong.startswith(said)


@pytest.mark.parametrize(("host", "said"), BAD.items())
def test_files_that_are_not_made(rendered: dict[str, dict[str, Any]], host: str, said: str) -> None:
    assert said in rendered[host]["refused"]
    assert "rendered" not in rendered[host]


def words(text: str) -> list[list[str]]:
    return [list(line.words) for line in grammar.parse_lines(text)]


def test_nut_conf(rendered: dict[str, dict[str, Any]]) -> None:
    told = {
        host: [line for line in rendered[host]["rendered"]["nut.conf"].splitlines() if not line.startswith("#")]
        for host in ("bare", "full", "desk")
    }
    # without quotes: Debian 12 hands them to sleep, which fails, and then the host is rebooted at once
    assert told == {
        "bare": ["MODE=netserver"],
        "full": ["MODE=netserver", "POWEROFF_WAIT=10m"],
        "desk": ["MODE=netclient"],
    }


def test_ups_conf(rendered: dict[str, dict[str, Any]]) -> None:
    bare = ups_conf.parse_ups_conf(rendered["bare"]["rendered"]["ups.conf"])
    assert dict(bare.settings) == {"maxretry": "3", "retrydelay": "5", "pollinterval": "2"}
    assert {name: dict(one.keys) for name, one in bare.sections.items()} == {"ups": {"driver": "auto", "port": "auto"}}
    full = ups_conf.parse_ups_conf(rendered["full"]["rendered"]["ups.conf"])
    assert dict(full.settings) == {"maxretry": "4", "retrydelay": "6", "pollinterval": "3"}
    assert {name: dict(one.keys) for name, one in full.sections.items()} == {
        "left": {
            "driver": "usbhid-ups",
            "port": "auto",
            "desc": ODD,
            "pollonly": None,
            "serial": "000123",
            "override.battery.charge.low": "25",
        },
        "right": {"driver": "dummy-ups", "port": "right.dev"},
    }


def test_null_takes_the_role_s_own_setting_away(rendered: dict[str, dict[str, Any]]) -> None:
    files = rendered["less"]["rendered"]
    assert dict(ups_conf.parse_ups_conf(files["ups.conf"]).settings) == {"pollinterval": "2"}
    assert "HOSTSYNC" not in settings(rendered, "less")
    assert settings(rendered, "less").keys() == settings(rendered, "bare").keys() - {"HOSTSYNC"}


def test_upsd_conf(rendered: dict[str, dict[str, Any]]) -> None:
    # nobody else may connect
    assert words(rendered["bare"]["rendered"]["upsd.conf"]) == [["LISTEN", "127.0.0.1", "3493"], ["MAXAGE", "15"]]
    assert words(rendered["full"]["rendered"]["upsd.conf"]) == [
        ["LISTEN", "127.0.0.1", "1234"],
        ["LISTEN", "2001:db8::1", "999"],
        ["MAXAGE", "25"],
    ]


def test_upsd_users(rendered: dict[str, dict[str, Any]]) -> None:
    """Each host that hangs on this primary has a login, with no more rights than it needs, and nobody else."""
    made = rendered["full"]["passwords"]
    assert upsd.read_users(rendered["full"]["rendered"]["upsd.users"]) == {
        "root": User("root", PRIMARIES["full"]["nut_server_password"], "primary"),
        "nas": User("nas", made["nas"], "secondary"),
        "media-1": User("media-1", made["media"], "secondary"),
        "desk": User("desk", "x'y;z", "secondary"),
    }
    assert upsd.read_users(rendered["bare"]["rendered"]["upsd.users"]) == {
        "monitor": User("monitor", made["bare"], "primary")
    }
    assert "SET" not in rendered["full"]["rendered"]["upsd.users"]


def test_passwords_are_made_for_those_without_one(rendered: dict[str, dict[str, Any]]) -> None:
    made = rendered["full"]["passwords"]
    assert {"bare", "nas", "media", "desk2"} <= set(made)
    assert not {"full", "blank", "desk"} & set(made)
    assert len(set(made.values())) == len(made)


def test_monitors_of_a_primary(rendered: dict[str, dict[str, Any]]) -> None:
    secret = PRIMARIES["full"]["nut_server_password"]
    assert upsmon.read_monitors(rendered["full"]["rendered"]["upsmon.conf"]) == (
        Monitor("left@localhost:1234", 2, "root", secret, "primary"),
        Monitor("right@localhost:1234", 0, "root", secret, "primary"),
    )
    made = rendered["bare"]["passwords"]["bare"]
    assert upsmon.read_monitors(rendered["bare"]["rendered"]["upsmon.conf"]) == (
        Monitor("ups@localhost:3493", 1, "monitor", made, "primary"),
    )


def test_monitor_of_a_secondary(rendered: dict[str, dict[str, Any]]) -> None:
    made = rendered["media"]["passwords"]["media"]
    (media,) = upsmon.read_monitors(rendered["media"]["rendered"]["upsmon.conf"])
    assert media == Monitor("left@[2001:db8::1]:1234", 1, "media-1", made, "secondary")
    assert (media.host, media.port) == ("2001:db8::1", 1234)
    (desk,) = upsmon.read_monitors(rendered["desk"]["rendered"]["upsmon.conf"])
    assert (desk.user, desk.password) == ("desk", "x'y;z")
    (desk2,) = upsmon.read_monitors(rendered["desk2"]["rendered"]["upsmon.conf"])
    assert (desk2.system, desk2.user) == ("ups@linux:3493", "desk2")


@pytest.mark.parametrize("host", LINUX)
def test_the_primary_knows_its_secondary(rendered: dict[str, dict[str, Any]], host: str) -> None:
    """What the one sends is what the other holds, and what is watched is served."""
    primary = rendered[SECONDARIES[host][1]]["rendered"]
    one, *_others = upsmon.read_monitors(rendered[host]["rendered"]["upsmon.conf"])
    assert upsd.read_users(primary["upsd.users"])[one.user] == User(one.user, one.password, "secondary")
    assert one.ups in ups_conf.parse_ups_conf(primary["ups.conf"]).sections


def settings(rendered: dict[str, dict[str, Any]], host: str) -> dict[str, str]:
    lines = [
        line for line in words(rendered[host]["rendered"]["upsmon.conf"]) if line[0] not in ("MONITOR", "CERTHOST")
    ]
    found = {line[0]: line[1] for line in lines}
    assert all(len(line) == 2 for line in lines)
    assert len(found) == len(lines)
    return found


@pytest.mark.parametrize(
    ("host", "file"), [("odd", file) for file in FILES["nut_server"]] + [("odd2", file) for file in FILES["nut_client"]]
)
def test_every_setting_is_read_as_it_was_set(rendered: dict[str, dict[str, Any]], host: str, file: str) -> None:
    role = "nut_client" if host in LINUX else "nut_server"
    text = rendered[host]["rendered"][file]
    # the user's own text comes last, behind a line that says where it is from
    *before, last = text.partition("\n[ups]")[0].rstrip().splitlines()
    assert (before[-1], last) == (f"# {role}_extra_lines", EXTRA[file].rstrip())
    assert text.endswith("\n")
    text = "\n".join([*before, ""])
    if file == "upsd.users":
        return
    system = {"odd": "ups@localhost:3493", "odd2": "ups@far:3493"}[host]
    wanted = {
        name: [system if word == "MONITORED" else word for word in ODD_SETTINGS[file][name][1]]
        for name in of(role, file)
    }
    found: dict[str, list[str]] = {}
    if file == "nut.conf":
        # who reads it is a shell
        shown = "".join(f'printf "%s\\n" "${name}"; ' for name in wanted)
        done = subprocess.run(["sh", "-c", f"{text}\n{shown}"], capture_output=True, text=True, check=True, env={})
        found = {name: [value] for name, value in zip(wanted, done.stdout.splitlines(), strict=True)}
    elif file == "ups.conf":
        found = {name: [] if value is None else [value] for name, value in ups_conf.parse_ups_conf(text).settings}
    else:
        for line in words(text):
            if line[0] not in ("MONITOR", "LISTEN"):
                found.setdefault(line[0], []).extend(line[1:])
        if file == "upsmon.conf" and host == "odd2":
            wanted["HOSTSYNC"], wanted["FINALDELAY"] = ["46"], ["47"]
    if file == "upsmon.conf":
        # upssched is to hear of what AT names
        assert wanted["NOTIFYFLAG"][-2:] == ["ONLINE", "SYSLOG+WALL+EXEC"]
    assert found == wanted


def test_unset_settings_are_not_written(rendered: dict[str, dict[str, Any]]) -> None:
    """Only what has a default of this collection's own stands in the files. NUT's own count for the rest."""
    bare = rendered["bare"]["rendered"]
    told = {file: {line[0] for line in words(bare[file])} for file in ("upsd.conf", "upsmon.conf", "upssched.conf")}
    assert told == {
        "upsd.conf": {"LISTEN", "MAXAGE"},
        "upsmon.conf": {"MONITOR", "HOSTSYNC", "FINALDELAY", *settings(rendered, "bare")},
        "upssched.conf": {"CMDSCRIPT", "PIPEFN", "LOCKFN"},
    }


def test_the_odd_device(rendered: dict[str, dict[str, Any]]) -> None:
    conf = ups_conf.parse_ups_conf(rendered["odd"]["rendered"]["ups.conf"])
    assert {name: dict(one.keys) for name, one in conf.sections.items()} == {
        "ups": {
            "driver": "usbhid-ups",
            "port": "auto",
            "vendorid": "051d",
            "product": ODD,
            "pollfreq": "12",
            "ignorelb": None,
            "default.battery.charge.low": "30",
            "override.ups.mfr": ODD,
        }
    }


def test_further_users(rendered: dict[str, dict[str, Any]]) -> None:
    text = rendered["odd"]["rendered"]["upsd.users"]
    made = rendered["odd"]["passwords"]
    assert upsd.read_users(text) == {
        "monitor": User("monitor", made["odd"], "primary"),
        "viewer": User("viewer", made["viewer@odd"], ""),
        "admin": User("admin", "a'b\"c", "primary"),
        "guest": User("guest", made["guest@odd"], "secondary"),
    }
    # one that is given, and those that are refused, have none made
    assert not {"admin@odd", "monitor@own", "nas4@taken"} & set(made)
    rights: dict[str, list[str]] = {}
    for line in words(text):
        if line[0].startswith("["):
            name = line[0]
        elif line[0] in ("actions", "instcmds"):
            rights.setdefault(name, []).append(f"{line[0]} {line[2]}")
    assert rights == {
        "[admin]": ["actions SET", "actions FSD", "instcmds ALL"],
        "[guest]": ["instcmds beeper.mute", "instcmds test.battery.start", "actions FSD"],  # the last is EXTRA
    }


def test_further_ups_of_others(rendered: dict[str, dict[str, Any]]) -> None:
    _own, far, away = upsmon.read_monitors(rendered["odd"]["rendered"]["upsmon.conf"])
    assert far == Monitor("far@[2001:db8::2]:5", 1, "u", "p'", "primary")
    assert away == Monitor("far@away", 0, "u", "p", "secondary")
    own, *others = upsmon.read_monitors(rendered["odd2"]["rendered"]["upsmon.conf"])
    assert (own.system, own.power, others) == ("ups@far:3493", 2, [away])


def test_upssched_is_called_where_it_has_something_to_do(rendered: dict[str, dict[str, Any]]) -> None:
    lines = words(rendered["timed"]["rendered"]["upsmon.conf"])
    assert ["NOTIFYCMD", "/sbin/upssched"] in lines
    assert ["NOTIFYFLAG", "ONBATT", "SYSLOG+WALL+EXEC"] in lines
    assert words(rendered["timed"]["rendered"]["upssched.conf"])[-1] == [
        *("AT", "ONBATT", "right@localhost:1", "START-TIMER", "early", "300")
    ]


def test_tls(rendered: dict[str, dict[str, Any]]) -> None:
    """Off it leaves no trace. On, the primary, and each secondary that does not say otherwise, speak nothing else."""
    trusted = {"CERTPATH": "/etc/nut/tls/client", "CERTVERIFY": "1", "FORCESSL": "1"}
    assert settings(rendered, "safe2").items() >= trusted.items()
    assert not trusted.keys() & settings(rendered, "frank").keys()
    assert settings(rendered, "safe").items() >= {**trusted, "CERTPATH": "/etc/nut/tls/server"}.items()
    # its own upsmon comes by loopback, and the certificate, if it is the user's, is for another name
    checked = [line for line in words(rendered["safe"]["rendered"]["upsmon.conf"]) if line[0] == "CERTHOST"]
    assert checked == [["CERTHOST", "localhost", "safe", "1", "1"]]
    served = words(rendered["safe"]["rendered"]["upsd.conf"])
    assert [line for line in served if line[0] not in ("LISTEN", "MAXAGE")] == [
        ["CERTPATH", "/etc/nut/tls/server"],
        ["CERTIDENT", "safe_1", ""],
        ["DISABLE_WEAK_SSL", "1"],
    ]


@pytest.mark.parametrize(
    ("host", "hostsync", "finaldelay"),
    [
        ("bare", 30, 2),  # nut-shutdown waits for them
        ("full", 45, 90 + 5),  # a SHUTDOWNCMD of its own; nas takes 60, media 90, desk 10: the slowest counts
        ("margin", 30, 60 + 20),
        ("fixed", 30, 7),
        ("linux", 30, 30 + 5),
    ],
)
def test_a_primary_waits_for_its_slowest_secondary(
    rendered: dict[str, dict[str, Any]], host: str, hostsync: int, finaldelay: int
) -> None:
    found = settings(rendered, host)
    assert (found["HOSTSYNC"], found["FINALDELAY"]) == (str(hostsync), str(finaldelay))


def test_the_rest_of_a_primary_s_upsmon_conf(rendered: dict[str, dict[str, Any]]) -> None:
    bare, full = settings(rendered, "bare"), settings(rendered, "full")
    assert {name: bare[name] for name in bare if name not in ("HOSTSYNC", "FINALDELAY")} == {
        "MINSUPPLIES": "1",
        "POLLFREQ": "5",
        "POLLFREQALERT": "5",
        "DEADTIME": "15",
        "RBWARNTIME": "43200",
        "NOCOMMWARNTIME": "300",
        "SHUTDOWNCMD": "/bin/systemctl start --no-block nut-shutdown.service || /sbin/shutdown -h +0",
        "POWERDOWNFLAG": "/run/nut-killpower",
    }
    assert settings(rendered, "linux")["SHUTDOWNCMD"] == "/sbin/shutdown -h +0"
    assert {name: full[name] for name in full if name not in ("HOSTSYNC", "FINALDELAY")} == {
        "MINSUPPLIES": "2",
        "POLLFREQ": "7",
        "POLLFREQALERT": "6",
        "DEADTIME": "21",
        "RBWARNTIME": "100",
        "NOCOMMWARNTIME": "200",
        "SHUTDOWNCMD": '/bin/sh -c "echo #1; shutdown -h +0"',
        "POWERDOWNFLAG": "/run/nut/kill power",
    }


def test_the_rest_of_a_secondary_s_upsmon_conf(rendered: dict[str, dict[str, Any]]) -> None:
    """No POWERDOWNFLAG: a secondary must not cut the power of a UPS."""
    assert settings(rendered, "desk") == {
        "MINSUPPLIES": "1",
        "POLLFREQ": "5",
        "POLLFREQALERT": "5",
        "DEADTIME": "15",
        "RBWARNTIME": "43200",
        "NOCOMMWARNTIME": "300",
        "HOSTSYNC": "15",
        "FINALDELAY": "5",
        "SHUTDOWNCMD": "/sbin/shutdown -h +0",
    }
    assert settings(rendered, "desk2") == {
        "MINSUPPLIES": "1",
        "POLLFREQ": "8",
        "POLLFREQALERT": "9",
        "DEADTIME": "27",
        "RBWARNTIME": "100",
        "NOCOMMWARNTIME": "200",
        "HOSTSYNC": "20",
        "FINALDELAY": "3",
        "SHUTDOWNCMD": '/bin/sh -c "echo #1"',
    }


def load(role: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHECKOUT / "roles" / role / path).read_text())
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_default_is_documented_as_it_is(role: str) -> None:
    """A default that is a template is told in words, and none is NUT's. Not all options need one in defaults/main.yml."""
    options = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(role, "defaults/main.yml")
    assert set(defaults) <= set(options)
    for name, value in defaults.items():
        if value is None or (isinstance(value, str) and "{{" in value):
            assert "default" not in options[name], name
        else:
            assert (options[name]["default"], type(options[name]["default"])) == (value, type(value)), name
    documented = {name for name, option in options.items() if "default" in option}
    assert documented <= set(defaults)
    # none of these can be left out of a template
    used = {name for name in options if name not in defaults}
    texts = "".join(path.read_text() for path in (CHECKOUT / "roles" / role / "templates").iterdir())
    assert not [name for name in used if re.search(rf"\b{name}\b", texts)]


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_of_its_role_and_used(role: str) -> None:
    options = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert all(name.startswith(f"{role}_") for name in options)
    folders = [CHECKOUT / "roles", CHECKOUT / "plugins"]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".yml", ".j2")]
    texts = "".join(path.read_text() for path in paths if path.name != "argument_specs.yml")
    defaults = (CHECKOUT / "roles" / role / "defaults/main.yml").read_text()
    for name in options:
        declared = sum(line.startswith(f"{name}:") for line in defaults.splitlines())
        assert len(re.findall(rf"\b{name}\b", texts)) > declared, name


def test_the_library_has_the_same_defaults() -> None:
    """Another host's variables don't hold a role's defaults, so the library has these of its own."""
    defaults = load("nut_server", "defaults/main.yml")
    assert defaults["nut_server_upsmon_user"] == the_inventory.PRIMARY_USER
    assert defaults["nut_server_port"] == upsd.PORT
    (nas,) = the_inventory.list_secondaries({"pve": ["pve"], "truenas": ["nas"]}, {"pve": {}, "nas": {}})
    (device,) = defaults["nut_server_devices"]
    assert (nas["ups"], nas["primary_port"]) == (device["name"], defaults["nut_server_port"])


def options_of(role: str) -> dict[str, Any]:
    found: dict[str, Any] = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_odd_settings_have_every_directive(role: str) -> None:
    """But for those that are refused everywhere, and those that other tests are about."""
    for file in settings_library.FILES[role]:
        known = {name for name, directive in directives.DIRECTIVES[file].items() if not directive.never}
        assert known - set(ODD_SETTINGS[file]) <= {"LISTEN", "MONITOR"}


@pytest.mark.parametrize("role", ROLES)
def test_each_file_has_a_variable_that_tells_the_role_s_own_settings(role: str) -> None:
    options, own = options_of(role), load(role, "vars/main.yml")[f"__{role}_own_settings"]
    assert set(own) == set(settings_library.FILES[role])
    for file, values in own.items():
        option = options[settings_library.variable_of(role, file)]
        assert (option["type"], option["default"]) == ("dict", {})
        told = " ".join(option["description"])
        assert f"directives of {file}".lower() in told.lower().replace("c(", "").replace(")", "")
        assert "does not merge dictionaries" in told
        assert [name for name in values if name not in told] == []
        assert set(values) <= set(directives.DIRECTIVES[file])


def test_a_user_of_upsd_may_have_all_that_nut_knows() -> None:
    users = {name for name, directive in directives.DIRECTIVES["upsd.users"].items() if not directive.never}
    assert users < set(options_of("nut_server")["nut_server_users"]["options"])
