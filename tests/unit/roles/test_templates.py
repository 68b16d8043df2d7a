# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's files for several hosts, rendered by a real play and read back as NUT reads them.

All tests are in one file, because they share one play, which takes 20 s.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
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
from ansible_collections.homelab.nut.plugins.module_utils._nut.kinds import KINDS
from ansible_collections.homelab.nut.tests.unit.support.plays import make_role, run_roles

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[3]
ROLES = ("nut_server", "nut_client")

ODD = "UPS #1 \"rack\" \\ = [x] {{ not_a_variable }} 'q' $HOME `id`"
# the same as a regular expression, which NUT takes it for: a brace alone is none
ODD_PATTERN = ODD.replace("{", "[{]")

PATH, WORD = f"/{ODD}", 'u"#\\='

# for each directive the value of its key, and the words that NUT reads after the directive, from one line or several
OddSetting = tuple[Any, list[str]]
ODD_SETTINGS: dict[str, dict[str, OddSetting]] = {
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


# the user's extra lines for each file
EXTRA = {
    "nut.conf": "OF_ANOTHER=1\n",
    "ups.conf": "retrydelay = 78",
    "upsd.conf": "MAXAGE 79\n",
    "upsd.users": "actions = FSD",
    "upsmon.conf": "RBWARNTIME 80",
    "upssched.conf": "AT ONBATT * EXECUTE x\n\n",
}


def list_directives(role: str, file: str) -> list[str]:
    """Return the directives of a file that a role's variable takes."""
    return [name for name in ODD_SETTINGS[file] if role == "nut_server" or name not in settings_library.PRIMARY_ONLY]


def make_odd_variables(role: str) -> dict[str, Any]:
    """Return variables that give every directive its odd value, and every file an extra line."""
    variables: dict[str, Any] = {f"{role}_extra_lines": {file: EXTRA[file] for file in FILES[role]}}
    for file in set(FILES[role]) - {"upsd.users"}:
        variables[settings_library.variable_of(role, file)] = {
            name: ODD_SETTINGS[file][name][0] for name in list_directives(role, file) if name != "AT"
        }
    variables[f"{role}_upssched_rules"] = ODD_SETTINGS["upssched.conf"]["AT"][0]
    return variables


# one primary for each case; its secondaries are in SECONDARIES
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
    "margin": {"nut_server_gate": {"enabled": False, "margin": 20}},
    "fixed": {"nut_server_upsmon_conf": {"FINALDELAY": 7}},
    "linux": {"nut_server_gate": {"enabled": False}},
    "odd": {
        **make_odd_variables("nut_server"),
        "nut_server_devices": [
            {
                "name": "ups",
                "powervalue": 1,
                "vendorid": "051d",
                "product": ODD_PATTERN,
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
# hosts whose files are rendered, but which NUT on the host would reject
UNFIT = {
    "mute": "upsmon.conf: MONITOR far@away: the password contains a '#' and a '='",
    "mute2": "upsmon.conf: MONITOR far@away: the password contains a '#' and a '='",
}
BAD = {
    "twins": "nut_server_devices: two devices are called ups",
    "control": "nut_server_devices: device ups: desc: character 4 (U+000A) is a control character",
    "blank": "blank: nut_server_password can't be used: it contains a space",
    "own": "nut_server_users: monitor is already the user of",
    "taken": "nut_server_users: nas4 is already the user of",
    "double": "nut_server_users: a is already the user of",
    "slash": "slash: 'a/b' can't be a user: the user name contains a slash",
    "broken": "broken: the password of a in nut_server_users can't be used: it contains a '#'",
    "unseen": "nut_server_upssched_rules: ONBATT EXECUTE x: this host monitors no UPS called usp",
    "unheard": "nut_server_upssched_rules: ONBATT EXECUTE x: NOTIFYFLAG of ONBATT is SYSLOG, and without EXEC upsmon does not call",
    "truth": "nut_server_upsmon_conf: NOTIFYMSG: a type of event is not a string. Put OFF in quotes",
    "typo": "nut_server_upsmon_conf: OFDURATION is not a directive of upsmon.conf. Did you mean OFFDURATION?"
    " nut_server_upsmon_conf: OFFDURATION is 'soon', must be a whole number",
    "typo_device": "nut_server_devices: device ups: there is no key ofdelay. Did you mean offdelay?",
    "typo_file": "nut_server_extra_lines: upsmon is not one of nut.conf, ups.conf, upsd.conf, upsmon.conf, upssched.conf, upsd.users."
    " Did you mean upsmon.conf?",
    "kind": "nut_server_devices: [ups]: offdelay is 'soon', must be a whole number of seconds",
}
# replaces the results of the lookup homelab.nut.certificate
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
# no role runs there, so nothing is seen
SYNOLOGY = {"nut_client_user": "monuser", "nut_client_password": "secret", "seen": {}}
SECONDARIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "nas": ("truenas", "full", {"nut_client_ups": "right"}),
    "media": ("ups_clients", "full", {"nut_client_shutdown_time": 90, "nut_client_user": "media-1"}),
    "desk": ("ups_clients", "full", {"nut_client_shutdown_time": 10, "nut_client_password": "x'y;z"}),
    "syno": ("unmanaged", "full", SYNOLOGY),
    "syno2": ("unmanaged", "full", SYNOLOGY),
    "nas2": ("truenas", "margin", {}),
    "nas3": ("truenas", "fixed", {"nut_client_shutdown_time": 300}),
    "nas4": ("truenas", "taken", {}),
    "safe2": ("ups_clients", "safe", {}),
    "frank": ("ups_clients", "safe", {"nut_client_tls": False}),
    "odd2": (
        "ups_clients",
        "far",
        {
            **make_odd_variables("nut_client"),
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

# replaces the tasks of the role: the files are put into a fact instead of onto a host
TASKS = """\
- vars:
    __nut_may_make_secrets: true
  block:
    - ansible.builtin.set_fact:
        seen:
          rendered: "{{ FILES }}"
  rescue:
    - ansible.builtin.set_fact:
        seen:
          refused: "{{ ansible_failed_result.msg }}"
"""


def make_inventory() -> dict[str, Any]:
    """Return an inventory with PRIMARIES and SECONDARIES."""
    groups: dict[str, Any] = {"pve": {"hosts": PRIMARIES}, **{group: {"hosts": {}} for group in KINDS}}
    for name, (group, primary, variables) in SECONDARIES.items():
        groups[group]["hosts"][name] = {"nut_client_primary": primary, **variables}
    return groups


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return for each host its files as `rendered`, or the error message as `refused`."""
    root = tmp_path_factory.mktemp("site")
    for name in ROLES:
        make_role(root, name, TASKS.replace("FILES", f"__{name}_files"))
    roles = {"pve": "nut_server", "truenas:ups_clients": "nut_client"}
    hosts: dict[str, dict[str, Any]] = run_roles(root, roles, make_inventory(), "-e", json.dumps(TLS))
    for host in hosts.values():
        host["passwords"] = {
            path.name: path.read_text().strip() for path in (root / ".homelab-nut" / "passwords").glob("[!.]*")
        }
    return hosts


GOOD = [name for name in PRIMARIES if name not in {**BAD, **UNFIT}]
LINUX = [
    name for name, (group, _primary, _variables) in SECONDARIES.items() if group == "ups_clients" and name not in UNFIT
]


@pytest.mark.parametrize("host", [*GOOD, *LINUX])
def test_nut_accepts_all_files(rendered: dict[str, dict[str, Any]], host: str) -> None:
    files = rendered[host]["rendered"]
    assert set(files) == set(FILES["nut_client" if host in LINUX else "nut_server"])
    assert consistency.find_inconsistencies(files) == []
    assert all(text.startswith("# Written by Ansible") for text in files.values())


@pytest.mark.parametrize(("host", "message"), UNFIT.items())
def test_unsafe_password_in_an_extra_monitor_is_found(
    rendered: dict[str, dict[str, Any]], host: str, message: str
) -> None:
    (wrong,) = consistency.find_inconsistencies(rendered[host]["rendered"])
    assert wrong.startswith(message)


@pytest.mark.parametrize(("host", "message"), BAD.items())
def test_invalid_variable_is_refused(rendered: dict[str, dict[str, Any]], host: str, message: str) -> None:
    assert message in rendered[host]["refused"]
    assert "rendered" not in rendered[host]


def read_words(text: str) -> list[list[str]]:
    return [list(line.words) for line in grammar.parse_lines(text)]


def test_nut_conf_has_mode_and_user_settings(rendered: dict[str, dict[str, Any]]) -> None:
    lines = {
        host: [line for line in rendered[host]["rendered"]["nut.conf"].splitlines() if not line.startswith("#")]
        for host in ("bare", "full", "desk")
    }
    # without quotes: Debian 12 passes them to sleep, which fails, and the host reboots immediately
    assert lines == {
        "bare": ["MODE=netserver"],
        "full": ["MODE=netserver", "POWEROFF_WAIT=10m"],
        "desk": ["MODE=netclient"],
    }


def test_ups_conf_has_all_devices(rendered: dict[str, dict[str, Any]]) -> None:
    bare = ups_conf.parse_ups_conf(rendered["bare"]["rendered"]["ups.conf"])
    assert dict(bare.settings) == {"maxretry": "3", "retrydelay": "5", "pollinterval": "2"}
    assert {name: dict(section.keys) for name, section in bare.sections.items()} == {
        "ups": {"driver": "auto", "port": "auto"}
    }
    full = ups_conf.parse_ups_conf(rendered["full"]["rendered"]["ups.conf"])
    assert dict(full.settings) == {"maxretry": "4", "retrydelay": "6", "pollinterval": "3"}
    assert {name: dict(section.keys) for name, section in full.sections.items()} == {
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


def test_null_removes_a_setting_of_the_role(rendered: dict[str, dict[str, Any]]) -> None:
    files = rendered["less"]["rendered"]
    assert dict(ups_conf.parse_ups_conf(files["ups.conf"]).settings) == {"pollinterval": "2"}
    assert "HOSTSYNC" not in read_settings(rendered, "less")
    assert read_settings(rendered, "less").keys() == read_settings(rendered, "bare").keys() - {"HOSTSYNC"}


def test_upsd_conf_listens_where_necessary(rendered: dict[str, dict[str, Any]]) -> None:
    # no secondaries, so upsd listens on loopback only
    assert read_words(rendered["bare"]["rendered"]["upsd.conf"]) == [["LISTEN", "127.0.0.1", "3493"], ["MAXAGE", "15"]]
    assert read_words(rendered["full"]["rendered"]["upsd.conf"]) == [
        ["LISTEN", "127.0.0.1", "1234"],
        ["LISTEN", "2001:db8::1", "999"],
        ["MAXAGE", "25"],
    ]


def test_upsd_users_has_a_user_for_each_secondary(rendered: dict[str, dict[str, Any]]) -> None:
    """Only secondaries of this primary have a login, with no unnecessary rights."""
    made = rendered["full"]["passwords"]
    assert upsd.read_users(rendered["full"]["rendered"]["upsd.users"]) == {
        "root": User("root", PRIMARIES["full"]["nut_server_password"], "primary"),
        "nas": User("nas", made["nas"], "secondary"),
        "media-1": User("media-1", made["media"], "secondary"),
        "desk": User("desk", "x'y;z", "secondary"),
        "monuser": User("monuser", "secret", "secondary"),  # of both Synologys
    }
    assert rendered["full"]["rendered"]["upsd.users"].count("[monuser]") == 1
    assert upsd.read_users(rendered["bare"]["rendered"]["upsd.users"]) == {
        "monitor": User("monitor", made["bare"], "primary")
    }
    assert "SET" not in rendered["full"]["rendered"]["upsd.users"]


def test_passwords_are_generated_where_missing(rendered: dict[str, dict[str, Any]]) -> None:
    made = rendered["full"]["passwords"]
    assert {"bare", "nas", "media", "desk2"} <= set(made)
    assert not {"full", "blank", "desk"} & set(made)
    assert len(set(made.values())) == len(made)


def test_primary_monitors_every_device(rendered: dict[str, dict[str, Any]]) -> None:
    secret = PRIMARIES["full"]["nut_server_password"]
    assert upsmon.read_monitors(rendered["full"]["rendered"]["upsmon.conf"]) == (
        Monitor("left@localhost:1234", 2, "root", secret, "primary"),
        Monitor("right@localhost:1234", 0, "root", secret, "primary"),
    )
    made = rendered["bare"]["passwords"]["bare"]
    assert upsmon.read_monitors(rendered["bare"]["rendered"]["upsmon.conf"]) == (
        Monitor("ups@localhost:3493", 1, "monitor", made, "primary"),
    )


def test_secondary_monitors_the_ups_of_the_primary(rendered: dict[str, dict[str, Any]]) -> None:
    made = rendered["media"]["passwords"]["media"]
    (media,) = upsmon.read_monitors(rendered["media"]["rendered"]["upsmon.conf"])
    assert media == Monitor("left@[2001:db8::1]:1234", 1, "media-1", made, "secondary")
    assert (media.host, media.port) == ("2001:db8::1", 1234)
    (desk,) = upsmon.read_monitors(rendered["desk"]["rendered"]["upsmon.conf"])
    assert (desk.user, desk.password) == ("desk", "x'y;z")
    (desk2,) = upsmon.read_monitors(rendered["desk2"]["rendered"]["upsmon.conf"])
    assert (desk2.system, desk2.user) == ("ups@linux:3493", "desk2")


@pytest.mark.parametrize("host", LINUX)
def test_primary_knows_the_login_of_each_secondary(rendered: dict[str, dict[str, Any]], host: str) -> None:
    """The secondary logs in as a user of the primary, and monitors a UPS of the primary."""
    primary = rendered[SECONDARIES[host][1]]["rendered"]
    monitor, *_others = upsmon.read_monitors(rendered[host]["rendered"]["upsmon.conf"])
    assert upsd.read_users(primary["upsd.users"])[monitor.user] == User(monitor.user, monitor.password, "secondary")
    assert monitor.ups in ups_conf.parse_ups_conf(primary["ups.conf"]).sections


def read_settings(rendered: dict[str, dict[str, Any]], host: str) -> dict[str, str]:
    lines = [
        line for line in read_words(rendered[host]["rendered"]["upsmon.conf"]) if line[0] not in ("MONITOR", "CERTHOST")
    ]
    found = {line[0]: line[1] for line in lines}
    assert all(len(line) == 2 for line in lines)
    assert len(found) == len(lines)
    return found


@pytest.mark.parametrize(
    ("host", "file"), [("odd", file) for file in FILES["nut_server"]] + [("odd2", file) for file in FILES["nut_client"]]
)
def test_every_directive_is_read_back_unchanged(rendered: dict[str, dict[str, Any]], host: str, file: str) -> None:
    role = "nut_client" if host in LINUX else "nut_server"
    text = rendered[host]["rendered"][file]
    # the extra lines come last, after a comment with the variable's name
    *before, last = text.partition("\n[ups]")[0].rstrip().splitlines()
    assert (before[-1], last) == (f"# {role}_extra_lines", EXTRA[file].rstrip())
    assert text.endswith("\n")
    text = "\n".join([*before, ""])
    if file == "upsd.users":
        return
    system = {"odd": "ups@localhost:3493", "odd2": "ups@far:3493"}[host]
    wanted = {
        name: [system if word == "MONITORED" else word for word in ODD_SETTINGS[file][name][1]]
        for name in list_directives(role, file)
    }
    found: dict[str, list[str]] = {}
    if file == "nut.conf":
        # a shell reads this file
        shown = "".join(f'printf "%s\\n" "${name}"; ' for name in wanted)
        done = subprocess.run(["sh", "-c", f"{text}\n{shown}"], capture_output=True, text=True, check=True, env={})
        found = {name: [value] for name, value in zip(wanted, done.stdout.splitlines(), strict=True)}
    elif file == "ups.conf":
        found = {name: [] if value is None else [value] for name, value in ups_conf.parse_ups_conf(text).settings}
    else:
        for line in read_words(text):
            if line[0] not in ("MONITOR", "LISTEN"):
                found.setdefault(line[0], []).extend(line[1:])
        if file == "upsmon.conf" and host == "odd2":
            wanted["HOSTSYNC"], wanted["FINALDELAY"] = ["46"], ["47"]
    if file == "upsmon.conf":
        # upsmon calls upssched for the events of AT lines
        assert wanted["NOTIFYFLAG"][-2:] == ["ONLINE", "SYSLOG+WALL+EXEC"]
    assert found == wanted


def test_unset_settings_are_not_written(rendered: dict[str, dict[str, Any]]) -> None:
    """The files have only the role's own settings. For all others NUT's defaults apply."""
    bare = rendered["bare"]["rendered"]
    lines = {
        file: {line[0] for line in read_words(bare[file])} for file in ("upsd.conf", "upsmon.conf", "upssched.conf")
    }
    assert lines == {
        "upsd.conf": {"LISTEN", "MAXAGE"},
        "upsmon.conf": {"MONITOR", "HOSTSYNC", "FINALDELAY", *read_settings(rendered, "bare")},
        "upssched.conf": {"CMDSCRIPT", "PIPEFN", "LOCKFN"},
    }


def test_device_keys_are_read_back_unchanged(rendered: dict[str, dict[str, Any]]) -> None:
    conf = ups_conf.parse_ups_conf(rendered["odd"]["rendered"]["ups.conf"])
    assert {name: dict(section.keys) for name, section in conf.sections.items()} == {
        "ups": {
            "driver": "usbhid-ups",
            "port": "auto",
            "vendorid": "051d",
            "product": ODD_PATTERN,
            "pollfreq": "12",
            "ignorelb": None,
            "default.battery.charge.low": "30",
            "override.ups.mfr": ODD,
        }
    }


def test_users_of_the_inventory_are_written(rendered: dict[str, dict[str, Any]]) -> None:
    text = rendered["odd"]["rendered"]["upsd.users"]
    made = rendered["odd"]["passwords"]
    assert upsd.read_users(text) == {
        "monitor": User("monitor", made["odd"], "primary"),
        "viewer": User("viewer", made["viewer@odd"], ""),
        "admin": User("admin", "a'b\"c", "primary"),
        "guest": User("guest", made["guest@odd"], "secondary"),
    }
    # no passwords are generated for users with a password or for refused users
    assert not {"admin@odd", "monitor@own", "nas4@taken"} & set(made)
    rights: dict[str, list[str]] = {}
    for line in read_words(text):
        if line[0].startswith("["):
            name = line[0]
        elif line[0] in ("actions", "instcmds"):
            rights.setdefault(name, []).append(f"{line[0]} {line[2]}")
    assert rights == {
        "[admin]": ["actions SET", "actions FSD", "instcmds ALL"],
        "[guest]": ["instcmds beeper.mute", "instcmds test.battery.start", "actions FSD"],  # FSD is from EXTRA
    }


def test_extra_monitors_are_written(rendered: dict[str, dict[str, Any]]) -> None:
    _own, far, away = upsmon.read_monitors(rendered["odd"]["rendered"]["upsmon.conf"])
    assert far == Monitor("far@[2001:db8::2]:5", 1, "u", "p'", "primary")
    assert away == Monitor("far@away", 0, "u", "p", "secondary")
    own, *others = upsmon.read_monitors(rendered["odd2"]["rendered"]["upsmon.conf"])
    assert (own.system, own.power, others) == ("ups@far:3493", 2, [away])


def test_upssched_is_called_for_events_of_the_rules(rendered: dict[str, dict[str, Any]]) -> None:
    lines = read_words(rendered["timed"]["rendered"]["upsmon.conf"])
    assert ["NOTIFYCMD", "/sbin/upssched"] in lines
    assert ["NOTIFYFLAG", "ONBATT", "SYSLOG+WALL+EXEC"] in lines
    assert read_words(rendered["timed"]["rendered"]["upssched.conf"])[-1] == [
        *("AT", "ONBATT", "right@localhost:1", "START-TIMER", "early", "300")
    ]


def test_tls_is_required_where_enabled(rendered: dict[str, dict[str, Any]]) -> None:
    """Without TLS the files don't mention it. With TLS all hosts use it, except for secondaries that turn it off."""
    trusted = {"CERTPATH": "/etc/nut/tls/client", "CERTVERIFY": "1", "FORCESSL": "1"}
    assert read_settings(rendered, "safe2").items() >= trusted.items()
    assert not trusted.keys() & read_settings(rendered, "frank").keys()
    assert read_settings(rendered, "safe").items() >= {**trusted, "CERTPATH": "/etc/nut/tls/server"}.items()
    # the primary's own upsmon connects to localhost, which the user's certificate does not cover
    checked = [line for line in read_words(rendered["safe"]["rendered"]["upsmon.conf"]) if line[0] == "CERTHOST"]
    assert checked == [["CERTHOST", "localhost", "safe", "1", "1"]]
    served = read_words(rendered["safe"]["rendered"]["upsd.conf"])
    assert [line for line in served if line[0] not in ("LISTEN", "MAXAGE")] == [
        ["CERTPATH", "/etc/nut/tls/server"],
        ["CERTIDENT", "safe_1", ""],
        ["DISABLE_WEAK_SSL", "1"],
    ]


@pytest.mark.parametrize(
    ("host", "hostsync", "finaldelay"),
    [
        ("bare", 30, 2),  # nut-shutdown waits for the secondaries
        ("full", 45, 90 + 5),  # with the user's SHUTDOWNCMD; nas takes 60 s, media 90 s, desk 10 s
        ("margin", 30, 60 + 20),
        ("fixed", 30, 7),
        ("linux", 30, 30 + 5),
    ],
)
def test_primary_waits_for_the_slowest_secondary(
    rendered: dict[str, dict[str, Any]], host: str, hostsync: int, finaldelay: int
) -> None:
    found = read_settings(rendered, host)
    assert (found["HOSTSYNC"], found["FINALDELAY"]) == (str(hostsync), str(finaldelay))


def test_upsmon_conf_of_a_primary_is_complete(rendered: dict[str, dict[str, Any]]) -> None:
    bare, full = read_settings(rendered, "bare"), read_settings(rendered, "full")
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
    assert read_settings(rendered, "linux")["SHUTDOWNCMD"] == "/sbin/shutdown -h +0"
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


def test_upsmon_conf_of_a_secondary_has_no_powerdownflag(rendered: dict[str, dict[str, Any]]) -> None:
    """No POWERDOWNFLAG: a secondary must not cut the power of a UPS."""
    assert read_settings(rendered, "desk") == {
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
    assert read_settings(rendered, "desk2") == {
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


@pytest.mark.parametrize("role", ROLES)
def test_odd_settings_have_every_directive(role: str) -> None:
    """Except for directives that are always refused, and those with their own tests."""
    for file in settings_library.FILES[role]:
        known = {name for name, directive in directives.DIRECTIVES[file].items() if not directive.never}
        assert known - set(ODD_SETTINGS[file]) <= {"LISTEN", "MONITOR"}
