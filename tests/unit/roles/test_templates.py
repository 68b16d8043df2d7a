# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles' templates make of an inventory, read back as NUT reads it; rendered by Ansible itself, in one play."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut import (
    monitors,
    parseconf,
    site,
    ups_conf,
    upsd,
    validate,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.monitors import Monitor, User

CHECKOUT = Path(__file__).parents[3]
ROLES = ("nut_server", "nut_client")

ODD = "UPS #1 \"rack\" \\ = [x] {{ not_a_variable }} 'q' $HOME `id`"

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
        "nut_server_user": "root",
        "nut_server_password": "a'b!$%&*()+,-./:;<>?@[]^_`{|}~",
        "nut_server_minsupplies": 2,
        "nut_server_poweroff_wait": "10m",
        "nut_server_hostsync": 45,
        "nut_server_shutdowncmd": '/bin/sh -c "echo #1; shutdown -h +0"',
        "nut_server_powerdownflag": "/run/nut/kill power",
        "nut_server_maxage": 25,
        "nut_server_maxretry": 4,
        "nut_server_retrydelay": 6,
        "nut_server_pollinterval": 3,
        "nut_server_pollfreq": 7,
        "nut_server_pollfreqalert": 6,
        "nut_server_deadtime": 21,
        "nut_server_rbwarntime": 100,
        "nut_server_nocommwarntime": 200,
    },
    "margin": {"nut_server_shutdown_margin": 20},
    "fixed": {"nut_server_finaldelay": 7},
    "linux": {},
    "twins": {"nut_server_devices": [{"name": "ups"}, {"name": "ups"}]},
    "control": {"nut_server_devices": [{"name": "ups", "desc": "two\nlines"}]},
    "blank": {"nut_server_password": "with blank"},
}
SECONDARIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "nas": ("truenas", "full", {"nut_client_ups": "right"}),
    "media": ("ups_clients", "full", {"nut_client_shutdown_time": 90, "nut_client_user": "media-1"}),
    "desk": ("ups_clients", "full", {"nut_client_shutdown_time": 10, "nut_client_password": "x'y;z"}),
    "nas2": ("truenas", "margin", {}),
    "nas3": ("truenas", "fixed", {"nut_client_shutdown_time": 300}),
    "desk2": (
        "ups_clients",
        "linux",
        {
            "nut_client_pollfreq": 8,
            "nut_client_pollfreqalert": 9,
            "nut_client_deadtime": 27,
            "nut_client_rbwarntime": 100,
            "nut_client_nocommwarntime": 200,
            "nut_client_hostsync": 20,
            "nut_client_finaldelay": 3,
            "nut_client_shutdowncmd": '/bin/sh -c "echo #1"',
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
PLAYBOOK = """\
- hosts: pve
  gather_facts: false
  roles: [nut_server]
- hosts: truenas:ups_clients
  gather_facts: false
  roles: [nut_client]
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        content: "{{ dict(groups.all | zip(groups.all | map('extract', hostvars, 'seen'))) | to_json }}"
        dest: "{{ playbook_dir }}/seen.json"
        mode: "0600"
      run_once: true
      delegate_to: localhost
"""


def inventory() -> dict[str, Any]:
    """PRIMARIES and SECONDARIES as a YAML inventory. Text is marked where braces are meant as such."""
    groups: dict[str, Any] = {"pve": {"hosts": PRIMARIES}, "truenas": {"hosts": {}}, "ups_clients": {"hosts": {}}}
    for name, (group, primary, variables) in SECONDARIES.items():
        groups[group]["hosts"][name] = {"nut_client_primary": primary, **variables}
    return groups


class Unsafe(str):
    """Text that Ansible takes as it is."""

    __slots__ = ()


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return Unsafe(value) if isinstance(value, str) and "{{" in value else value


class Dumper(yaml.SafeDumper):
    """Writes Unsafe with the tag that Ansible knows."""


Dumper.add_representer(Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the play saw, by host: `rendered` holds its files, or `refused` why there are none."""
    root = tmp_path_factory.mktemp("site")
    for name in ROLES:
        tasks = root / "roles" / name / "tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text(TASKS.replace("FILES", f"__{name}_files"))
        for part in ("defaults", "vars", "templates", "meta"):
            (tasks.parent / part).symlink_to(CHECKOUT / "roles" / name / part)
    (root / "hosts.yml").write_text(yaml.dump(plain(inventory()), Dumper=Dumper))
    (root / "site.yml").write_text(PLAYBOOK)
    (root / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {CHECKOUT / '.collections'}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment.update(
        ANSIBLE_CONFIG=str(root / "ansible.cfg"),
        ANSIBLE_HOME=str(root / "home"),
        ANSIBLE_PYTHON_INTERPRETER=sys.executable,
    )
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [str(program), "-i", "hosts.yml", "-c", "local", "site.yml"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, Any]] = json.loads((root / "seen.json").read_text())
    for host in found.values():
        host["passwords"] = {path.name: path.read_text().strip() for path in (root / "passwords").iterdir()}
    return found


GOOD = [name for name in PRIMARIES if name not in ("twins", "control", "blank")]
LINUX = [name for name, (group, _primary, _variables) in SECONDARIES.items() if group == "ups_clients"]


@pytest.mark.parametrize("host", [*GOOD, *LINUX])
def test_files_that_nut_takes(rendered: dict[str, dict[str, Any]], host: str) -> None:
    files = rendered[host]["rendered"]
    assert set(files) == {
        "nut.conf",
        "upsmon.conf",
        *(() if host in LINUX else ("ups.conf", "upsd.conf", "upsd.users")),
    }
    assert validate.together(files) == []
    assert all(text.startswith("# Written by Ansible") for text in files.values())


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("twins", "nut_server_devices: two devices are called ups"),
        ("control", "nut_server_devices: device ups: desc: character 4 (U+000A) is a control character"),
        ("blank", "blank: nut_server_password can't be used: the password holds a space"),
    ],
)
def test_files_that_are_not_made(rendered: dict[str, dict[str, Any]], host: str, said: str) -> None:
    assert said in rendered[host]["refused"]
    assert "rendered" not in rendered[host]


def words(text: str) -> list[list[str]]:
    return [list(line.words) for line in parseconf.parse(text)]


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
    bare = ups_conf.parse(rendered["bare"]["rendered"]["ups.conf"])
    assert dict(bare.settings) == {"maxretry": "3", "retrydelay": "5", "pollinterval": "2"}
    assert {name: dict(one.keys) for name, one in bare.sections.items()} == {
        "ups": {"driver": "usbhid-ups", "port": "auto"}
    }
    full = ups_conf.parse(rendered["full"]["rendered"]["ups.conf"])
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


def test_upsd_conf(rendered: dict[str, dict[str, Any]]) -> None:
    assert words(rendered["bare"]["rendered"]["upsd.conf"]) == [["LISTEN", "0.0.0.0", "3493"], ["MAXAGE", "15"]]
    assert words(rendered["full"]["rendered"]["upsd.conf"]) == [
        ["LISTEN", "127.0.0.1", "1234"],
        ["LISTEN", "2001:db8::1", "999"],
        ["MAXAGE", "25"],
    ]


def test_upsd_users(rendered: dict[str, dict[str, Any]]) -> None:
    """Each host that hangs on this primary has a login, with no more rights than it needs, and nobody else."""
    made = rendered["full"]["passwords"]
    assert monitors.users(rendered["full"]["rendered"]["upsd.users"]) == {
        "root": User("root", PRIMARIES["full"]["nut_server_password"], "primary"),
        "nas": User("nas", made["nas"], "secondary"),
        "media-1": User("media-1", made["media"], "secondary"),
        "desk": User("desk", "x'y;z", "secondary"),
    }
    assert monitors.users(rendered["bare"]["rendered"]["upsd.users"]) == {
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
    assert monitors.monitors(rendered["full"]["rendered"]["upsmon.conf"]) == (
        Monitor("left@localhost:1234", 2, "root", secret, "primary"),
        Monitor("right@localhost:1234", 0, "root", secret, "primary"),
    )
    made = rendered["bare"]["passwords"]["bare"]
    assert monitors.monitors(rendered["bare"]["rendered"]["upsmon.conf"]) == (
        Monitor("ups@localhost:3493", 1, "monitor", made, "primary"),
    )


def test_monitor_of_a_secondary(rendered: dict[str, dict[str, Any]]) -> None:
    made = rendered["media"]["passwords"]["media"]
    (media,) = monitors.monitors(rendered["media"]["rendered"]["upsmon.conf"])
    assert media == Monitor("left@[2001:db8::1]:1234", 1, "media-1", made, "secondary")
    assert (media.host, media.port) == ("2001:db8::1", 1234)
    (desk,) = monitors.monitors(rendered["desk"]["rendered"]["upsmon.conf"])
    assert (desk.user, desk.password) == ("desk", "x'y;z")
    (desk2,) = monitors.monitors(rendered["desk2"]["rendered"]["upsmon.conf"])
    assert (desk2.system, desk2.user) == ("ups@linux:3493", "desk2")


@pytest.mark.parametrize("host", LINUX)
def test_the_primary_knows_its_secondary(rendered: dict[str, dict[str, Any]], host: str) -> None:
    """What the one sends is what the other holds, and what is watched is served."""
    primary = rendered[SECONDARIES[host][1]]["rendered"]
    (one,) = monitors.monitors(rendered[host]["rendered"]["upsmon.conf"])
    assert monitors.users(primary["upsd.users"])[one.user] == User(one.user, one.password, "secondary")
    assert one.ups in ups_conf.parse(primary["ups.conf"]).sections


def settings(rendered: dict[str, dict[str, Any]], host: str) -> dict[str, str]:
    lines = words(rendered[host]["rendered"]["upsmon.conf"])
    found = {line[0]: line[1] for line in lines if line[0] != "MONITOR"}
    assert all(len(line) == 2 for line in lines if line[0] != "MONITOR")
    assert len(found) == len([line for line in lines if line[0] != "MONITOR"])
    return found


@pytest.mark.parametrize(
    ("host", "hostsync", "finaldelay"),
    [
        ("bare", 30, 0 + 5),
        ("full", 45, 90 + 5),  # nas takes 60, media 90, desk 10: the slowest counts
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
        "SHUTDOWNCMD": "/sbin/shutdown -h +0",
        "POWERDOWNFLAG": "/run/nut/killpower",
    }
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
    """A default that is a template is told in words. An option without a default needs none in defaults/main.yml."""
    options = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(role, "defaults/main.yml")
    assert set(defaults) <= set(options)
    for name, value in defaults.items():
        if isinstance(value, str) and "{{" in value:
            assert "default" not in options[name], name
        else:
            assert (options[name]["default"], type(options[name]["default"])) == (value, type(value)), name
    documented = {name for name, option in options.items() if "default" in option}
    assert documented <= set(defaults)
    # none of these can be left out of a template
    used = {name for name in options if name not in defaults}
    texts = "".join(path.read_text() for path in (CHECKOUT / "roles" / role / "templates").iterdir())
    assert not [name for name in used if name in texts]


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
        assert texts.count(name) > declared, name


def test_the_library_has_the_same_defaults() -> None:
    """Another host's variables don't hold a role's defaults, so the library has these of its own."""
    defaults = load("nut_server", "defaults/main.yml")
    assert defaults["nut_server_user"] == site.PRIMARY_USER
    assert defaults["nut_server_port"] == monitors.PORT == upsd.PORT
    (nas,) = site.clients({"pve": ["pve"], "truenas": ["nas"]}, {"pve": {}, "nas": {}})
    (device,) = defaults["nut_server_devices"]
    assert (nas["ups"], nas["primary_port"]) == (device["name"], defaults["nut_server_port"])
    options = load("nut_server", "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    keys = options["nut_server_devices"]["options"]
    assert dict(ups_conf.section({"name": "ups"}).keys) == {key: keys[key]["default"] for key in ("driver", "port")}
    assert ups_conf.section({key: "1" for key in keys if key != "options"}).name == "1"
