# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that the roles can write is taken by each release, without what fit_files() leaves out; and that it would not take.

Of upsd.users also what each user is granted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.filter.directives import FilterModule
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import (
    consistency,
    dry_run,
    grammar,
    nss,
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
    **{"vendorid": "051d", "productid": "0002", "bus": "001", "busport": "002", "device": "003"},
    **{"PIPEFN": "/run/nut/pipe", "LOCKFN": "/run/nut/lock", "SHUTDOWNCMD": "/bin/echo #1", "MINSUPPLIES": 1},
    "MAXCONN": 50,
    **{"NUT_DEBUG_PID": True, "NUT_DEBUG_PROCNAME": True, "POLLFAIL_LOG_THROTTLE_MAX": 5},
    "NOTIFYMSG": dict.fromkeys(NOTIFY_TYPES, f"%s {ODD}"),
    "NOTIFYFLAG": {kind: ["SYSLOG", "EXEC"] for kind in NOTIFY_TYPES},
    "AT": [["ONBATT", "*", "START-TIMER", "early", "30"], ["ONLINE", "*", "CANCEL-TIMER", "early"]],
}


def choose_value(name: str, directive: Directive) -> Any:
    """Return the value to which the tests set a directive."""
    if name in BY_NAME:
        return BY_NAME[name]
    # a choice: its first word
    return BY_KIND[directive.kind] if directive.kind in BY_KIND else directive.kind.partition("|")[0]


def list_directives(file: str) -> dict[str, Directive]:
    """Return the directives of a file that some NUT accepts."""
    return {name: directive for name, directive in DIRECTIVES[file].items() if not directive.never}


def find_newer(table: dict[str, Directive], version: Release) -> set[str]:
    """Return the directives that are newer than a release."""
    return {name for name, directive in table.items() if directive.since > version}


# What the roles write

# the roles make these of other variables, or of nut_server_tls
MADE = {"LISTEN", "MONITOR", "CERTHOST", "AT", "CERTPATH", "CERTIDENT", "MODE"}
TASKS = """\
- ansible.builtin.set_fact:
    seen: {{files: "{{{{ __{role}_files }}}}", tls: "{{{{ __{role}_certificate }}}}"}}
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


def make_variables(role: str) -> dict[str, Any]:
    """Return variables of a role that set every directive."""
    found: dict[str, Any] = {}
    for file in settings.FILES[role]:
        found[settings.variable_of(role, file)] = {
            name: choose_value(name, directive)
            for name, directive in list_directives(file).items()
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


def make_device(version: Release) -> dict[str, Any]:
    """Return a device with every key, except those that a release must know and does not."""
    keys: dict[str, Any] = {"name": "ups", "default": {"battery.charge.low": 30}, "override": {"ups.mfr": ODD}}
    for name, directive in DEVICE.items():
        if not name.endswith(".*") and not (directive.needed and directive.since > version):
            keys[name] = choose_value(name, directive)
    return keys


@pytest.fixture(scope="session")
def rendered_files(tmp_path_factory: pytest.TempPathFactory, debians: dict[str, Release]) -> dict[str, dict[str, Any]]:
    """Render the roles' templates with Ansible: host -> files, tls. The hosts have the names of Debian's releases."""
    root = tmp_path_factory.mktemp("site")
    for role in FILES:
        tasks = root / "roles" / role / "tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text(TASKS.format(role=role))
        for part in ("defaults", "vars", "templates"):
            (tasks.parent / part).symlink_to(CHECKOUT / "roles" / role / part)
    users = [{"name": "admin", "password": "a'b", "actions": ["SET", "FSD"], "instcmds": ["ALL"], "upsmon": "primary"}]
    server = {**make_variables("nut_server"), "nut_server_tls": {"enabled": True}, "nut_server_users": users}
    server.update(nut_server_address="192.0.2.1", nut_server_listen=[{"address": "127.0.0.1", "port": 4000}])
    inventory = {
        "pve": {
            "hosts": {
                name: {**server, "nut_server_devices": [make_device(version)]} for name, version in debians.items()
            }
        },
        "ups_clients": {
            "hosts": {f"{name}-2": {**make_variables("nut_client"), "nut_client_primary": name} for name in debians}
        },
        "truenas": {"hosts": {}},
    }
    # no text here contains Jinja
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


def select_material(found: Mapping[str, str]) -> dict[str, str]:
    """Return what lookup certificate found, as check_files takes it."""
    return {part.name: found[part.name] for part in dataclasses.fields(nss.TlsMaterial) if part.name in found}


def written_in(files: dict[str, str]) -> set[str]:
    """Return "FILE DIRECTIVE" for each line of the files; "DEVICE KEY" for the sections of ups.conf."""
    found = {f"nut.conf {name}" for name in re.findall(r"^(\w+)=", files["nut.conf"], re.MULTILINE)}
    for name, text in files.items():
        if name == "ups.conf":
            conf = ups_conf.parse_ups_conf(text)
            found |= {f"ups.conf {key}" for key, _value in conf.settings}
            found |= {f"DEVICE {key}" for section in conf.sections.values() for key, _value in section.keys}
        elif name != "nut.conf":
            found |= {f"{name} {line.words[0]}" for line in grammar.parse_lines(text)}
    return found


@pytest.mark.parametrize("role", FILES)
def test_nut_accepts_every_directive_that_a_role_can_write(
    nut: Any, rendered_files: dict[str, dict[str, Any]], role: str
) -> None:
    seen = rendered_files[nut.debian if role == "nut_server" else f"{nut.debian}-2"]
    fitted = fit_files(seen["files"], nut.version)
    assert fitted.refused == ()
    assert consistency.find_inconsistencies(fitted.files, nut.version) == []
    tls = select_material(seen["tls"])
    assert nut.call_inside("check_files", files=fitted.files, tls=tls) == []
    # every directive was written
    complete, left = written_in(seen["files"]), written_in(fitted.files)
    for file in FILES[role]:
        for name, directive in list_directives(file).items():
            if role == "nut_server" or f"{file} {name}" in complete:
                assert f"{file} {name}" in complete
                assert (f"{file} {name}" in left) == (directive.since <= nut.version)
    if role == "nut_server":
        for name, directive in DEVICE.items():
            if not name.endswith(".*"):
                assert (f"DEVICE {name}" in left) == (directive.since <= nut.version)


@pytest.mark.parametrize("aim", ["run something", "overwrite a file", "own a directory"])
def test_user_nut_gains_nothing_by_attacking_the_check_of_files(
    nut: Any, rendered_files: dict[str, dict[str, Any]], aim: str
) -> None:
    """An attacker who has become nut replaces files and makes links while root checks files."""
    seen = rendered_files[nut.debian]
    files = fit_files(seen["files"], nut.version).files
    tls = select_material(seen["tls"])
    assert nut.call_inside("attack_checks", files=files, tls=tls, aim=aim, times=6) == {
        # only the given files were read
        "wrong": [],
        "ran as": [],
        "kept": ["kept", "kept"],
        "owners": [0, 0],
        "left": [],
    }


# Rights that upsd grants

# the second half is sent after LOGIN
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


def test_upsd_grants_each_user_exactly_the_needed_rights(nut: Any, rendered_files: dict[str, dict[str, Any]]) -> None:
    """With the role's upsd.users: the primary's user, a secondary's, and an administrator as a counter-check."""
    text = rendered_files[nut.debian]["files"]["upsd.users"]
    users = upsd.read_users(text)
    right = {"monitor": {"FSD", "PRIMARY", "MASTER", "LOGIN"}, f"{nut.debian}-2": {"LOGIN"}}
    right["admin"] = {*right["monitor"], "INSTCMD", "SET"}
    assert users.keys() == right.keys()
    logins = {(name, grammar.quote_word(user.password)): right[name] for name, user in users.items()}
    logins |= {(name, password): set() for name in (*users, "unknown", '""') for password in ("wrong", '""')}
    talks = [[f"USERNAME {name}", f"PASSWORD {password}", *ORDERS] for name, password in logins]
    # clients without a name or without a password
    talks += [
        [*ORDERS],
        ["USERNAME admin", *ORDERS],
        [f"PASSWORD {grammar.quote_word(users['admin'].password)}", *ORDERS],
    ]
    job = {"operation": "exchange_lines", "drivers": {"ups": DRIVER}, "conversations": talks}
    files = {"ups.conf": "[ups]\ndriver = fake\nport = x\n", "upsd.conf": "LISTEN 127.0.0.1 4000\n", "upsd.users": text}
    command = ["/usr/bin/python3", "/opt/inside/upsd_inside.py"]
    ((code, output),) = nut.call_inside(
        "run_programs", files={**files, "job.json": json.dumps(job)}, commands=[command]
    )
    assert code == 0, output
    granted = [*logins.values(), set(), set(), set()]
    for talk, answers, rights in zip(talks, json.loads(output.splitlines()[-1]), granted, strict=True):
        told = list(zip(ORDERS, answers.splitlines()[-len(ORDERS) :], strict=True))
        done = {order.split()[0].upper() for order, answer in told if answer.startswith("OK")}
        refused = {order.split()[0].upper() for order, answer in told if answer in REFUSALS}
        assert (done, refused) == (rights, right["admin"] - rights), (talk, answers)


# Directives that NUT refuses


def test_drivers_refuse_exactly_the_keys_newer_than_the_release(nut: Any) -> None:
    keys = {name.replace("*", "battery.charge.low"): directive for name, directive in DEVICE.items()}
    first = {"driver": "usbhid-ups", "port": "auto"}
    text = "".join(
        ups_conf.render_sections(
            ups_conf.build_sections([{"name": f"k{n}", **first, name: choose_value(name, directive)}])
        )
        for n, (name, directive) in enumerate(keys.items())
    )
    commands = [["usbhid-ups", "-a", f"k{n}", "-V"] for n in range(len(keys))]
    done = nut.call_inside("run_programs", files={"ups.conf": text}, commands=commands)
    refused = {name for name, (_code, output) in zip(keys, done, strict=True) if "Fatal error" in output}
    assert refused == find_newer(keys, nut.version)


def find_complaints(output: str) -> set[str]:
    """Return the directives that a program calls invalid."""
    return set(re.findall(r"[Ii]nvalid directive:? (\w+)", output))


def test_upsd_rejects_exactly_the_directives_newer_than_the_release(nut: Any) -> None:
    table = list_directives("upsd.conf")
    text = "".join(
        written({name: choose_value(name, directive)}, "upsd.conf") + "\n" for name, directive in table.items()
    )
    files = {"ups.conf": "[w]\ndriver = x\nport = y\n", "upsd.conf": text}
    answers = nut.call_inside("ask_upsd", files=files, conversations=[["LIST UPS"]])
    assert find_complaints(answers["output"]) == find_newer(table, nut.version)


def test_upsmon_rejects_exactly_the_directives_newer_than_the_release(nut: Any) -> None:
    table = list_directives("upsmon.conf")
    text = "".join(
        written({name: choose_value(name, directive)}, "upsmon.conf") + "\n" for name, directive in table.items()
    )
    ((_code, output),) = nut.call_inside(
        "run_programs",
        files={"upsmon.conf": text},
        commands=[["upsmon", "-P", dry_run.NO_PID, "-K", "-f", "/run/oracle/upsmon.conf"]],
    )
    assert find_complaints(output) == find_newer(table, nut.version)
    types = {kind for kind, since in NOTIFY_TYPES.items() if since > nut.version}
    assert set(re.findall(r"invalid notify type:? \[?(\w+)", output, re.IGNORECASE)) == types


def test_upssched_rejects_exactly_the_directives_newer_than_the_release(nut: Any) -> None:
    table = list_directives("upssched.conf")
    text = "".join(
        written({name: choose_value(name, directive)}, "upssched.conf") + "\n" for name, directive in table.items()
    )
    command = ["/usr/bin/env", "UPSNAME=__none", "NOTIFYTYPE=__none", "/sbin/upssched"]
    ((_code, output),) = nut.call_inside("run_programs", files={"upssched.conf": text}, commands=[command])
    assert find_complaints(output) == find_newer(table, nut.version)
