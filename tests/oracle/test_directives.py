# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that the roles can write is taken by each release, without what fit_files() leaves out; and that it would not take.

Of upsd.users also what each user is granted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.filter.directives import FilterModule
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import (
    consistency,
    dry_run,
    grammar,
    settings,
    ups_conf,
    upsd,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.directives import (
    DEVICE,
    DIRECTIVES,
    NOTIFY_TYPES,
    Directive,
    Release,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.fit import fit_files
from homelab import CHECKOUT

written = FilterModule().filters()["directives"]

FILES = {
    "nut_server": ("nut.conf", "ups.conf", "upsd.conf", "upsd.users", "upsmon.conf", "upssched.conf"),
    "nut_client": ("nut.conf", "upsmon.conf", "upssched.conf"),
}
ODD = 'UPS #1 "rack" \\ = [x]'

# What a variable is set to: by the kind of its directive, or by its name
BY_KIND: dict[str, Any] = {
    **{
        "number": 1,
        "positive": 7,
        "integer": -1,
        "seconds": 17,
        "boolean": True,
        "exit": 30,
        "hex": "0x1",
        "delay": "5m",
    },
    **{"word": "1", "text": ODD, "path": "/run/nut", "flag": True, "number?": 0},
}
BY_NAME: dict[str, Any] = {
    **{
        "MODE": "netserver",
        "LISTEN": ["127.0.0.1", "4000"],
        "CERTIDENT": ["nut", ""],
        "CERTHOST": ["localhost", "nut", "1", "1"],
    },
    **{
        "MONITOR": ["w@127.0.0.1:4000", "1", "u", "p", "primary"],
        "NOTIFYCMD": "/sbin/upssched",
        "CMDSCRIPT": "/bin/true",
    },
    **{
        "user": "nut",
        "group": "nut",
        "RUN_AS_USER": "nut",
        "driverpath": "/lib/nut",
        "driver": "usbhid-ups",
        "port": "auto",
    },
    **{"PIPEFN": "/run/nut/pipe", "LOCKFN": "/run/nut/lock", "SHUTDOWNCMD": "/bin/echo #1", "MINSUPPLIES": 1},
    **{"NUT_DEBUG_PID": True, "NUT_DEBUG_PROCNAME": True, "POLLFAIL_LOG_THROTTLE_MAX": 5},
    "NOTIFYMSG": dict.fromkeys(NOTIFY_TYPES, f"%s {ODD}"),
    "NOTIFYFLAG": {kind: ["SYSLOG", "EXEC"] for kind in NOTIFY_TYPES},
    "AT": [["ONBATT", "*", "START-TIMER", "early", "30"], ["ONLINE", "*", "CANCEL-TIMER", "early"]],
}


def value(name: str, directive: Directive) -> Any:
    """Choose what a directive is set to."""
    if name in BY_NAME:
        return BY_NAME[name]
    # a choice: its first word
    return BY_KIND[directive.kind] if directive.kind in BY_KIND else directive.kind.partition("|")[0]


def of(file: str) -> dict[str, Directive]:
    """List the directives of a file that are not refused everywhere."""
    return {name: directive for name, directive in DIRECTIVES[file].items() if not directive.never}


def newer(table: dict[str, Directive], version: Release) -> set[str]:
    return {name for name, directive in table.items() if directive.since > version}


# What the roles write

# the roles make these of other variables, or of nut_server_tls
MADE = {"LISTEN", "MONITOR", "CERTHOST", "AT", "CERTPATH", "CERTIDENT", "MODE"}
TASKS = """\
- ansible.builtin.set_fact:
    seen: {{files: "{{{{ __{role}_files }}}}", tls: "{{{{ __{role}_tls }}}}"}}
"""
PLAYBOOK = """\
- hosts: pve
  gather_facts: false
  roles: [nut_server]
- hosts: ups_clients
  gather_facts: false
  roles: [nut_client]
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        content: "{{ dict(groups.all | zip(groups.all | map('extract', hostvars, 'seen'))) | to_json }}"
        dest: "{{ playbook_dir }}/seen.json"
        mode: "0600"
"""


def variables(role: str) -> dict[str, Any]:
    """Set every directive that a role takes."""
    found: dict[str, Any] = {}
    for file in settings.FILES[role]:
        found[settings.variable_of(role, file)] = {
            name: value(name, directive)
            for name, directive in of(file).items()
            if name not in MADE and (role == "nut_server" or name not in settings.PRIMARY_ONLY)
        }
    timer = {"notifytype": "ONBATT", "command": "START-TIMER", "name": "early", "seconds": 30}
    found[f"{role}_upssched_rules"] = [
        timer,
        {"notifytype": "ONLINE", "command": "CANCEL-TIMER", "name": "early", "then": "back"},
    ]
    upsmon_conf = found[f"{role}_upsmon_conf"]
    upsmon_conf["CERTIDENT"] = {"nickname": "nut", "password": ODD}
    far = {"system": "far@127.0.0.2", "username": "u", "password": "p'q", "powervalue": 0}
    found[f"{role}_extra_monitors"] = [far]
    upsmon_conf["CERTHOST"] = [
        {"host": "localhost", "certname": "pve"},
        {"host": "a", "certname": "b", "forcessl": False},
    ]
    return found


def device(version: Release) -> dict[str, Any]:
    """Make a UPS with every key that may be left out where a release does not know it."""
    keys: dict[str, Any] = {"name": "ups", "default": {"battery.charge.low": 30}, "override": {"ups.mfr": ODD}}
    for name, directive in DEVICE.items():
        if not name.endswith(".*") and not (directive.needed and directive.since > version):
            keys[name] = value(name, directive)
    return keys


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory, debians: dict[str, Release]) -> dict[str, dict[str, Any]]:
    """Let Ansible render the roles' templates: host -> files, tls. A host and its secondary are called as the release."""
    root = tmp_path_factory.mktemp("site")
    for role in FILES:
        tasks = root / "roles" / role / "tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text(TASKS.format(role=role))
        for part in ("defaults", "vars", "templates"):
            (tasks.parent / part).symlink_to(CHECKOUT / "roles" / role / part)
    users = [{"name": "admin", "password": "a'b", "actions": ["SET", "FSD"], "instcmds": ["ALL"], "upsmon": "primary"}]
    server = {**variables("nut_server"), "nut_server_tls": {"enabled": True}, "nut_server_users": users}
    server.update(nut_server_address="192.0.2.1", nut_server_listen=[{"address": "127.0.0.1", "port": 4000}])
    inventory = {
        "pve": {
            "hosts": {name: {**server, "nut_server_devices": [device(version)]} for name, version in debians.items()}
        },
        "ups_clients": {
            "hosts": {f"{name}-2": {**variables("nut_client"), "nut_client_primary": name} for name in debians}
        },
        "truenas": {"hosts": {}},
    }
    # braces in texts are meant as such nowhere here
    (root / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (root / "site.yml").write_text(PLAYBOOK)
    (root / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {CHECKOUT / '.collections'}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment.update(ANSIBLE_CONFIG=str(root / "ansible.cfg"), ANSIBLE_HOME=str(root / "home"))
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [str(program), "-i", "hosts.yml", "-c", "local", "site.yml"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, Any]] = json.loads((root / "seen.json").read_text())
    return found


def written_in(files: dict[str, str]) -> set[str]:
    """Name all that stands in files: file or, in ups.conf's sections, DEVICE, and the word."""
    found = {f"nut.conf {name}" for name in re.findall(r"^(\w+)=", files["nut.conf"], re.MULTILINE)}
    for name, text in files.items():
        if name == "ups.conf":
            conf = ups_conf.parse_ups_conf(text)
            found |= {f"ups.conf {key}" for key, _value in conf.settings}
            found |= {f"DEVICE {key}" for one in conf.sections.values() for key, _value in one.keys}
        elif name != "nut.conf":
            found |= {f"{name} {line.words[0]}" for line in grammar.parse_lines(text)}
    return found


@pytest.mark.parametrize("role", FILES)
def test_nut_takes_all_that_a_role_can_write(nut: Any, rendered: dict[str, dict[str, Any]], role: str) -> None:
    seen = rendered[nut.debian if role == "nut_server" else f"{nut.debian}-2"]
    fitted = fit_files(seen["files"], nut.version)
    assert fitted.refused == ()
    assert consistency.find_inconsistencies(fitted.files, nut.version) == []
    tls = {name: text for name, text in seen["tls"].items() if name != "path"}
    assert nut.ask("check", files=fitted.files, tls=tls) == []
    # and nothing was forgotten
    complete, left = written_in(seen["files"]), written_in(fitted.files)
    for file in FILES[role]:
        for name, directive in of(file).items():
            if role == "nut_server" or f"{file} {name}" in complete:
                assert f"{file} {name}" in complete
                assert (f"{file} {name}" in left) == (directive.since <= nut.version)
    if role == "nut_server":
        for name, directive in DEVICE.items():
            if not name.endswith(".*"):
                assert (f"DEVICE {name}" in left) == (directive.since <= nut.version)


@pytest.mark.parametrize("aim", ["run something", "overwrite a file", "own a directory"])
def test_the_user_nut_gains_nothing_while_files_are_checked(
    nut: Any, rendered: dict[str, dict[str, Any]], aim: str
) -> None:
    """Who is nut already, by a USB device or over the network, renames and links what it can while root has files checked."""
    seen = rendered[nut.debian]
    files = fit_files(seen["files"], nut.version).files
    tls = {name: text for name, text in seen["tls"].items() if name != "path"}
    assert nut.ask("attack", files=files, tls=tls, aim=aim, times=6) == {
        # nothing else was read than what was given
        "wrong": [],
        "ran as": [],
        "kept": ["kept", "kept"],
        "owners": [0, 0],
        "left": [],
    }


# What upsd grants to whom

# after LOGIN, too
ORDERS = (
    *("FSD ups", "fsd UPS", "PRIMARY ups", "MASTER ups", "INSTCMD ups load.off", "INSTCMD ups shutdown.return 1"),
    *("SET VAR ups ups.id x", 'SET VAR ups ups.delay.shutdown "0"', "LOGIN ups"),
    *("FSD ups", "PRIMARY ups", "MASTER ups", "INSTCMD ups load.off", "SET VAR ups ups.id y"),
)
REFUSALS = ("ERR ACCESS-DENIED", "ERR USERNAME-REQUIRED", "ERR PASSWORD-REQUIRED")
DRIVER = {
    "lines": [
        'SETINFO ups.status "OL"',
        *(line for name in ("ups.id", "ups.delay.shutdown") for line in (f'SETINFO {name} "0"', f"SETFLAGS {name} RW STRING")),
        *("SETAUX ups.id 9", "SETAUX ups.delay.shutdown 9"),
    ],
    "commands": {"load.off": "done", "shutdown.return": "done"},
}  # fmt: skip


def test_each_user_is_granted_what_is_needed_and_no_more(nut: Any, rendered: dict[str, dict[str, Any]]) -> None:
    """Of the role's own upsd.users: the primary's user, a secondary's, and one with all rights, to see that there are any."""
    text = rendered[nut.debian]["files"]["upsd.users"]
    users = upsd.read_users(text)
    right = {"monitor": {"FSD", "PRIMARY", "MASTER", "LOGIN"}, f"{nut.debian}-2": {"LOGIN"}}
    right["admin"] = {*right["monitor"], "INSTCMD", "SET"}
    assert users.keys() == right.keys()
    logins = {(name, grammar.quote_word(user.password)): right[name] for name, user in users.items()}
    logins |= {(name, password): set() for name in (*users, "unknown", '""') for password in ("wrong", '""')}
    talks = [[f"USERNAME {name}", f"PASSWORD {password}", *ORDERS] for name, password in logins]
    # who gives no name at all, or no password
    talks += [
        [*ORDERS],
        ["USERNAME admin", *ORDERS],
        [f"PASSWORD {grammar.quote_word(users['admin'].password)}", *ORDERS],
    ]
    job = {"operation": "said", "drivers": {"ups": DRIVER}, "conversations": talks}
    files = {"ups.conf": "[ups]\ndriver = fake\nport = x\n", "upsd.conf": "LISTEN 127.0.0.1 4000\n", "upsd.users": text}
    command = ["/usr/bin/python3", "/opt/inside/upsd_inside.py"]
    ((code, said),) = nut.ask("run", files={**files, "job.json": json.dumps(job)}, commands=[command])
    assert code == 0, said
    granted = [*logins.values(), set(), set(), set()]
    for talk, answers, rights in zip(talks, json.loads(said.splitlines()[-1]), granted, strict=True):
        told = list(zip(ORDERS, answers.splitlines()[-len(ORDERS) :], strict=True))
        done = {order.split()[0].upper() for order, answer in told if answer.startswith("OK")}
        refused = {order.split()[0].upper() for order, answer in told if answer in REFUSALS}
        assert (done, refused) == (rights, right["admin"] - rights), (talk, answers)


# What it would not take


def test_a_driver_stops_at_a_key_that_its_release_does_not_know(nut: Any) -> None:
    keys = {name.replace("*", "battery.charge.low"): directive for name, directive in DEVICE.items()}
    first = {"driver": "usbhid-ups", "port": "auto"}
    text = "".join(
        ups_conf.render_sections(ups_conf.build_sections([{"name": f"k{n}", **first, name: value(name, directive)}]))
        for n, (name, directive) in enumerate(keys.items())
    )
    commands = [["usbhid-ups", "-a", f"k{n}", "-V"] for n in range(len(keys))]
    done = nut.ask("run", files={"ups.conf": text}, commands=commands)
    refused = {name for name, (_code, said) in zip(keys, done, strict=True) if "Fatal error" in said}
    assert refused == newer(keys, nut.version)


def complaints(said: str) -> set[str]:
    return set(re.findall(r"[Ii]nvalid directive:? (\w+)", said))


def test_upsd_complains_of_a_directive_that_its_release_does_not_know(nut: Any) -> None:
    table = of("upsd.conf")
    text = "".join(written({name: value(name, directive)}, "upsd.conf") + "\n" for name, directive in table.items())
    files = {"ups.conf": "[w]\ndriver = x\nport = y\n", "upsd.conf": text}
    told = nut.ask("ask_upsd", files=files, conversations=[["LIST UPS"]])
    assert complaints(told["said"]) == newer(table, nut.version)


def test_upsmon_complains_of_a_directive_that_its_release_does_not_know(nut: Any) -> None:
    table = of("upsmon.conf")
    text = "".join(written({name: value(name, directive)}, "upsmon.conf") + "\n" for name, directive in table.items())
    ((_code, said),) = nut.ask(
        "run",
        files={"upsmon.conf": text},
        commands=[["upsmon", "-P", dry_run.NO_PID, "-K", "-f", "/run/oracle/upsmon.conf"]],
    )
    assert complaints(said) == newer(table, nut.version)
    types = {kind for kind, since in NOTIFY_TYPES.items() if since > nut.version}
    assert set(re.findall(r"invalid notify type:? \[?(\w+)", said, re.IGNORECASE)) == types


def test_upssched_complains_of_a_directive_that_its_release_does_not_know(nut: Any) -> None:
    table = of("upssched.conf")
    text = "".join(written({name: value(name, directive)}, "upssched.conf") + "\n" for name, directive in table.items())
    command = ["/usr/bin/env", "UPSNAME=__none", "NOTIFYTYPE=__none", "/sbin/upssched"]
    ((_code, said),) = nut.ask("run", files={"upssched.conf": text}, commands=[command])
    assert complaints(said) == newer(table, nut.version)
