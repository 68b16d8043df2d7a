# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role's templates, rendered by a real play for several hosts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits, sandbox
from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_hotplug
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import policy, udev
from ansible_collections.homelab.nut.tests.unit.support.plays import make_role, run_roles
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[4]
ROLE = CHECKOUT / "roles" / "nut_hotplug"

HOSTILE = 'a"b\'c\\d|e$f%g#h, RUN+="/bin/sh -c x"\\n{{ 7 * 7 }}{% raw %} größe'

HOSTS: dict[str, dict[str, Any]] = {
    "bare": {},
    "full": {
        "nut_hotplug_scan_interval": 15,
        "nut_hotplug_default_name": "my-ups",
        "nut_hotplug_takeover": "no",
        "nut_hotplug_absent": "dummy",
        "nut_hotplug_patterns": ["1234:*", "*delta*", HOSTILE],
        "nut_hotplug_rules": [
            {"vendor": "0463", "serial": HOSTILE, "ignore": True},
            {
                "port": "1-1.4",
                "name": "rack",
                "driver": "nutdrv_qx",
                "options": {"subdriver": "cypress", "novendor": True},
            },
        ],
        "nut_hotplug_debug": True,
        "nut_hotplug_timezone": "Europe/Berlin",
        "nut_hotplug_log": "/srv/log/ups.log",
        "nut_hotplug_sysfs": "/run/usb/sys",
        "nut_hotplug_dev": "/run/usb/dev",
    },
    "gone": {"nut_server_state": "absent"},
    "open": {"nut_hotplug_hardening": "no"},
    "home": {"nut_hotplug_log": "/home/me/ups.log"},
    "number": {"nut_hotplug_rules": [{"vendor": 307}]},
    "wrong": {"nut_hotplug_default_name": "a b", "nut_hotplug_patterns": ["1234:00"]},
    "fast": {"nut_hotplug_scan_interval": 4},
    "slow": {"nut_hotplug_scan_interval": 86401},
    "blank": {"nut_hotplug_log": "/var/log/a b"},
    "folder": {"nut_hotplug_log": "/var/log/"},
    "relative": {"nut_hotplug_log": "hotplug.log"},
    "line": {"nut_hotplug_log": "/var/log/x\nExecStart=/bin/sh"},
    "zone": {"nut_hotplug_timezone": "Europe/Berlin\nExecStart=/bin/sh"},
    "percent": {"nut_hotplug_timezone": "%h"},
}
REFUSED = {
    "number": "nut_hotplug_rules[0].vendor",
    "wrong": "nut_hotplug_default_name",
    **dict.fromkeys(
        ("fast", "slow", "blank", "folder", "relative", "line", "zone", "percent"), "nut_hotplug_scan_interval must be"
    ),
}

# The role up to the tasks that change the host: instead of these, the files are put into a fact.
TASKS = """\
- block:
    - ansible.builtin.include_tasks: preflight.yml
    - ansible.builtin.set_fact:
        seen:
          rendered: "{{ __nut_hotplug_files }}"
          state: "{{ nut_hotplug_state }}"
  rescue:
    - ansible.builtin.set_fact:
        seen:
          refused: "{{ ansible_failed_result.msg }}"
"""


def load_yaml(path: str) -> Any:
    return yaml.safe_load((ROLE / path).read_text())


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return for each host its files as `rendered`, or the error message as `refused`."""
    root = tmp_path_factory.mktemp("site")
    tasks = make_role(root, "nut_hotplug", TASKS)
    (tasks / "preflight.yml").write_text(yaml.safe_dump(load_yaml("tasks/present.yml")[:1]))
    return run_roles(root, {"pve": "nut_hotplug"}, {"pve": {"hosts": HOSTS}})


GOOD = [name for name in HOSTS if name not in REFUSED]


@pytest.mark.parametrize("host", GOOD)
def test_files_are_a_complete_set_for_the_module(rendered: dict[str, dict[str, Any]], host: str) -> None:
    files = rendered[host]["rendered"]
    assert set(files) == set(kits.HOTPLUG.places)
    assert all(files[name] or name in kits.HOTPLUG.optional for name in files)
    assert all(text.endswith("\n") and not text.endswith("\n\n") for text in files.values() if text)
    assert all(
        text.startswith("# Written by Ansible") for name, text in files.items() if text and name != "hotplug.json"
    )


@pytest.mark.parametrize(("host", "message"), REFUSED.items())
def test_invalid_variable_stops_before_any_change(rendered: dict[str, dict[str, Any]], host: str, message: str) -> None:
    assert message in rendered[host]["refused"]
    assert "rendered" not in rendered[host]


def test_sandbox_is_in_the_drop_in(rendered: dict[str, dict[str, Any]]) -> None:
    """Settings that may fail on some hosts are in the drop-in, which can be omitted, and not in the unit."""
    texts = {host: rendered[host]["rendered"][kits.HOTPLUG_SANDBOX] for host in ("bare", "open", "home")}
    assert "ProtectHome=yes" in sandbox.list_settings(texts["bare"])
    assert texts["open"] == ""
    assert "ProtectHome" not in "".join(sandbox.list_settings(texts["home"]))  # the log is in a home directory
    for text in texts.values():
        other = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert other == (["[Service]", *sandbox.list_settings(text)] if text else [])
    service = sandbox.list_settings(rendered["bare"]["rendered"]["nut-hotplug.service"])
    assert not [
        line for line in service if line.startswith(("Private", "ProtectSystem", "ProtectHome", "ProtectHostname"))
    ]
    # to run NUT's drivers as nut, to give them their devices, and to end them
    (capabilities,) = [line for line in service if line.startswith("CapabilityBoundingSet=")]
    assert {"CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_FOWNER", "CAP_KILL"} <= set(
        re.findall(r"CAP_\w+", capabilities)
    )


def test_state_follows_nut_server_state(rendered: dict[str, dict[str, Any]]) -> None:
    assert (rendered["bare"]["state"], rendered["gone"]["state"]) == ("present", "absent")


def test_policy_has_all_variables(rendered: dict[str, dict[str, Any]]) -> None:
    """The role's defaults are those of the program."""
    assert policy.parse_policy(rendered["bare"]["rendered"]["hotplug.json"]) == policy.UsbPolicy()
    assert json.loads(rendered["full"]["rendered"]["hotplug.json"]) == {
        "version": 1,
        "sysfs": "/run/usb/sys",
        "dev": "/run/usb/dev",
        "default_name": "my-ups",
        "takeover": False,
        "absent": "dummy",
        "patterns": HOSTS["full"]["nut_hotplug_patterns"],
        "rules": HOSTS["full"]["nut_hotplug_rules"],
        "debug": True,
    }
    policy.parse_policy(rendered["full"]["rendered"]["hotplug.json"])


def read_unit(text: str) -> dict[str, dict[str, list[str]]]:
    """Return the sections of a unit, each a dictionary of keys and lists of values."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            keys = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _equals, value = line.partition("=")
            keys.setdefault(key, []).append(value)
    return found


def test_service_runs_the_program_without_limits_on_restarts(rendered: dict[str, dict[str, Any]]) -> None:
    bare = read_unit(rendered["bare"]["rendered"]["nut-hotplug.service"])
    full = read_unit(rendered["full"]["rendered"]["nut-hotplug.service"])
    # the quick check of the program recognizes exactly this command line
    assert bare["Service"]["ExecStart"] == [f"/{paths.HOTPLUG_PROGRAM} run"]
    assert bare["Service"]["Type"] == ["oneshot"]
    assert bare["Service"]["StateDirectory"] == ["nut-hotplug"]
    assert "Environment" not in bare["Service"]
    # the unit starts often, and systemd must never give up
    assert bare["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert int(bare["Service"]["TimeoutStartSec"][0]) > nut_hotplug.PROGRAM_SECONDS
    assert bare["Service"]["SuccessExitStatus"] == [str(nut_hotplug.BUSY)]
    # hides systemd's messages about each run, but not those of the program
    assert bare["Service"]["SyslogLevel"] == bare["Service"]["LogLevelMax"] == ["notice"]
    assert "Install" not in bare
    assert full["Service"].pop("Environment") == ["TZ=Europe/Berlin", "NUT_HOTPLUG_LOG=/srv/log/ups.log"]
    assert full == bare


def test_default_log_path_matches_the_program() -> None:
    path = load_yaml("defaults/main.yml")["nut_hotplug_log"]
    assert path == f"/{paths.HOTPLUG_LOG}"
    assert f"nut_hotplug_log != '{path}'" in (ROLE / "templates/nut-hotplug.service.j2").read_text()


@pytest.mark.parametrize(("host", "seconds"), [("bare", "60s"), ("full", "15s")])
def test_timer_runs_at_the_scan_interval(rendered: dict[str, dict[str, Any]], host: str, seconds: str) -> None:
    timer = read_unit(rendered[host]["rendered"]["nut-hotplug.timer"])
    assert timer["Timer"] == {"OnActiveSec": [seconds], "OnUnitInactiveSec": [seconds], "AccuracySec": ["1s"]}
    assert timer["Install"] == {"WantedBy": ["timers.target"]}


def test_logrotate_covers_the_log(rendered: dict[str, dict[str, Any]]) -> None:
    for host, path in (("bare", "/var/log/nut/hotplug.log"), ("full", "/srv/log/ups.log")):
        _comment, begin, *body, end = rendered[host]["rendered"]["logrotate"].splitlines()
        assert (begin, end) == (f"{path} {{", "}")
        assert "    missingok" in body
        assert not any(line.strip().startswith(("postrotate", "prerotate")) for line in body)


TOKEN = r"""[A-Z]+(?:\{[A-Za-z_]+\})?(?:==|!=|\+=|=)"[^"\\]*\""""
Line = list[tuple[str, str, str]]
ENDS = {
    "MODE=0664",
    "GROUP=nut",
    "TAG+=systemd",
    "ENV{SYSTEMD_WANTS}+=nut-hotplug.service",
    "RUN+=/bin/systemctl --no-block start nut-hotplug.service",
    "IMPORT{builtin}=path_id",
    "LABEL=nut_hotplug_decided",
    "LABEL=nut_hotplug_end",
    "GOTO=nut_hotplug_decided",
    "GOTO=nut_hotplug_end",
}


def read_rules(text: str) -> list[Line]:
    """Return key, operator and value of each token in a udev rules file. Fails for any other line."""
    found = []
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            assert re.fullmatch(rf"{TOKEN}(?:, {TOKEN})*", line), line
            found.append([tuple(re.split(r"(==|!=|\+=|=)", token, maxsplit=1)) for token in re.findall(TOKEN, line)])
    return [[(key, sign, value.strip('"')) for key, sign, value in line] for line in found]


def check_rules(text: str) -> None:
    """Check that a policy can change only the matches of the rules, but not their actions."""
    lines = read_rules(text)
    for line in lines:
        done = {f"{key}{sign}{value}" for key, sign, value in line if sign not in ("==", "!=")}
        assert done <= ENDS
    labels = [value for line in lines for key, _sign, value in line if key == "LABEL"]
    assert labels == ["nut_hotplug_decided", "nut_hotplug_end"]
    # the template's own lines
    fixed = [lines[:4], lines[-4:]]
    assert fixed == [read_rules(TEMPLATE_HEAD), read_rules(TEMPLATE_TAIL)]
    for line in lines[4:-4]:
        assert line[0][0] in (
            "ATTR{idVendor}",
            "ATTR{idProduct}",
            "ATTR{manufacturer}",
            "ATTR{product}",
            "ATTR{serial}",
            "KERNEL",
            "ENV{ID_PATH}",
        )
        assert line[0][1] == "=="


TEMPLATE_HEAD = """\
SUBSYSTEM!="usb", GOTO="nut_hotplug_end"
ENV{DEVTYPE}!="usb_device", GOTO="nut_hotplug_end"
ACTION=="remove", RUN+="/bin/systemctl --no-block start nut-hotplug.service", GOTO="nut_hotplug_end"
ATTR{bDeviceClass}=="09", GOTO="nut_hotplug_decided"
"""
TEMPLATE_TAIL = """\
LABEL="nut_hotplug_decided"
TAG+="systemd", ENV{SYSTEMD_WANTS}+="nut-hotplug.service"
ACTION=="change", RUN+="/bin/systemctl --no-block start nut-hotplug.service"
LABEL="nut_hotplug_end"
"""


@pytest.mark.parametrize("host", GOOD)
def test_udev_rules_have_only_known_actions(rendered: dict[str, dict[str, Any]], host: str) -> None:
    check_rules(rendered[host]["rendered"]["63-nut-hotplug.rules"])


def test_udev_rules_permit_devices_of_the_policy(rendered: dict[str, dict[str, Any]]) -> None:
    bare, full = (rendered[host]["rendered"]["63-nut-hotplug.rules"] for host in ("bare", "full"))
    assert udev.render_permissions({}) in bare
    assert udev.render_permissions(json.loads(rendered["full"]["rendered"]["hotplug.json"])) in full
    assert len(read_rules(full)) == len(read_rules(bare)) + 1 + 1 + 2 + 1 + 2 * 2


def render_rules(given_policy: dict[str, Any]) -> str:
    """Render the rules like Ansible, without starting it."""
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 - no HTML
    environment.filters["homelab.nut.udev_permissions"] = udev.render_permissions
    template = environment.from_string((ROLE / "templates/63-nut-hotplug.rules.j2").read_text())
    return template.render(__nut_hotplug_policy=given_policy, **load_yaml("vars/main.yml"))


def test_render_rules_matches_ansible(rendered: dict[str, dict[str, Any]]) -> None:
    files = rendered["full"]["rendered"]
    assert render_rules(json.loads(files["hotplug.json"])) == files["63-nut-hotplug.rules"]


ANY = st.text(max_size=60) | st.text('"\\\n\r,=+#{}[]*?|$% aRUN', max_size=30)
ANY_RULE = st.dictionaries(st.sampled_from(["vendor", "product", "serial", "port"]), ANY, min_size=1)


@given(st.lists(ANY, max_size=3), st.lists(ANY_RULE, max_size=3), st.booleans())
def test_patterns_cannot_break_the_udev_rules(patterns: list[str], made: list[dict[str, Any]], ignore: bool) -> None:
    """Not even a pattern that the check of the policy would reject."""
    rules_made = [rule for rule in made if any(rule.values())]
    check_rules(render_rules({"patterns": patterns, "rules": [{**rule, "ignore": ignore} for rule in rules_made]}))


def test_documented_defaults_are_the_real_defaults() -> None:
    options = load_yaml("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = {name: value for name, value in load_yaml("defaults/main.yml").items() if not name.startswith("__")}
    assert set(defaults) == set(options)
    for name, value in defaults.items():
        if isinstance(value, dict) or (isinstance(value, str) and "{{" in value):
            assert "default" not in options[name], name
        else:
            assert (options[name]["default"], type(options[name]["default"])) == (value, type(value)), name


def test_documentation_covers_all_keys_of_the_policy() -> None:
    options = load_yaml("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert set(load_yaml("defaults/main.yml")["__nut_hotplug_policy"]) == set(policy.KEYS)
    assert set(options["nut_hotplug_rules"]["options"]) == set(policy.RULE_KEYS)
    assert tuple(options["nut_hotplug_absent"]["choices"]) == policy.ABSENT


def test_role_and_library_use_the_same_names() -> None:
    assert load_yaml("vars/main.yml")["__nut_hotplug_label"] == udev.DECIDED
    assert load_yaml("vars/main.yml")["__nut_hotplug_program"] == f"/{paths.HOTPLUG_PROGRAM}"
