# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program as installed on a host: an executable archive that begins with a shell script."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.action import zipapp
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files
from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_hotplug
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import SysfsTree

pytestmark = pytest.mark.slow

FILES = Path(__file__).resolve().parents[4] / "roles/nut_hotplug/files"
APC = "051d:0002"
SYSTEMCTL = """\
#!/bin/sh
[ "$1" = show ] || exit 0
shift 3
for unit; do
    case $unit in nut-driver@*) state=failed ;; *) state=active ;; esac
    printf 'Id=%s\\nLoadState=loaded\\nActiveState=%s\\nUnitFileState=enabled\\nMainPID=1\\n\\n' "$unit" $state
done
"""


class Program:
    """The program with its own USB bus and files. All programs that it runs are scripts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bus = SysfsTree(root)
        self.bus.root_hub()
        self.path = root / "nut-hotplug"
        self.log = root / "log"
        self.policy: dict[str, Any] = {"sysfs": str(self.bus.sysfs), "dev": str(self.bus.dev)}
        for folder in ("nut", "run", "bin"):
            (root / folder).mkdir()
        (root / "nut/nut.conf").write_text("MODE=netserver\n")
        (root / "nut/ups.conf").write_text("")
        (root / "nut/upsd.conf").write_text("LISTEN 127.0.0.1 1\n")
        (root / "bin/systemctl").write_text(SYSTEMCTL)
        (root / "bin/systemctl").chmod(0o755)
        # with the Python of the tests, and another /run
        start = (FILES / "start.sh").read_text().replace("/usr/bin/python3", sys.executable)
        start = start.replace('"/run/', f'"{root}/run/')
        self.path.write_bytes(
            zipapp.build_program(FILES / "nut_hotplug.py", "_nut", start.encode(), first="_nut/hotplug/quiet.py")
        )
        self.path.chmod(0o755)

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (self.root / "policy").write_text(json.dumps(self.policy))
        places = {
            "--policy": "policy",
            "--conf-dir": "nut",
            "--state": "state/state.json",
            "--run-dir": "run",
            **({"--log": "log"} if "run" in words else {}),
        }
        options = [word for option, name in places.items() for word in (option, str(self.root / name))]
        return self.bare(*words, *options, **environment)

    def bare(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.root}/bin:{os.environ['PATH']}"
        return subprocess.run(
            [self.path, *words],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": path, "LANG": "C.UTF-8", **environment},
        )


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_help_lists_commands_and_exit_codes(program: Program) -> None:
    done = program.bare("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("exit codes:", "75", "status", "run", "plan"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("command", "own", "others"),
    [("run", "--log", "--json"), ("plan", "--json", "--log"), ("status", "--json", "--log")],
)
def test_help_of_a_command_lists_only_valid_options(program: Program, command: str, own: str, others: str) -> None:
    done = program.bare(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert own in done.stdout
    assert "--policy FILE" in done.stdout
    assert others not in done.stdout


@pytest.mark.parametrize(
    "words",
    [[], ["bogus"], ["run", "--bogus"], ["run", "extra\x1b[31m"], ["run", "--json"], ["plan", "--log", "x"]],
)
def test_wrong_command_line_is_refused(program: Program, words: list[str]) -> None:
    done = program.bare(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"See nut-hotplug (run |plan )?--help", done.stderr)
    assert done.stderr.removesuffix("\n").isprintable()


@pytest.mark.parametrize("text", ["{", '{"nonsense": 1}', "[]"])
def test_invalid_policy_is_refused(program: Program, text: str) -> None:
    program.policy = {}
    (program.root / "other").write_text(text)
    done = program.bare("plan", "--policy", str(program.root / "other"))
    assert (done.returncode, done.stdout) == (2, "")
    assert str(program.root / "other") in done.stderr


def test_plan_shows_steps_and_changes_nothing(program: Program) -> None:
    program.bus.plug_in("1-1", APC)
    done = program("plan")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"write {program.root}/nut/ups.conf: [ups] is 051d:0002 American Power Conversion" in done.stdout
    assert "start nut-driver-enumerator.service: [ups] is" in done.stdout
    assert "\n+[ups]\n" in done.stdout
    assert sorted(path.name for path in (program.root / "nut").iterdir()) == ["nut.conf", "ups.conf", "upsd.conf"]
    assert not (program.root / "state").exists()


def test_plan_can_be_printed_as_json(program: Program) -> None:
    program.bus.plug_in("1-1", APC)
    data = json.loads(program("plan", "--json").stdout)
    assert data["changes"] is True
    assert len(data["steps"]) == 4  # the watcher of ups.conf is stopped first
    assert set(data) == {"changes", "steps", "diff", "deferred", "faults", "waits", "remarks"}


def test_plan_without_changes_is_empty(program: Program) -> None:
    done = program("plan")
    assert (done.returncode, done.stdout) == (0, "nothing to do\n")


def test_status_shows_each_ups_safely(program: Program) -> None:
    program.bus.plug_in("1-1", APC, product='x"\n[evil]\x1b[2J')
    done = program("status")
    assert done.returncode == 0
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert re.search(r"  ups +UNREACHABLE +usbhid-ups +051d:0002 American Power Conversion x\"\\n\[evil\]", done.stdout)
    assert "pending: write" in done.stdout
    assert "last actions:\n  none\n" in done.stdout


def test_status_can_be_printed_as_json(program: Program) -> None:
    program.bus.plug_in("1-1", APC, product="caf\u00e9\x1b")
    done = program("status", "--json")
    data = json.loads(done.stdout)
    assert data["upses"][0]["product"] == "caf\u00e9\\x1b"
    assert data["upses"][0]["name"] == "ups"
    assert (data["absent"], data["history"], data["deferred"]) == ([], [], [])
    assert done.stdout.isascii()


def test_status_works_on_an_ascii_terminal(program: Program) -> None:
    program.bus.plug_in("1-1", APC, product="caf\u00e9")
    done = program("status", LANG="C", PYTHONCOERCECLOCALE="0", LC_ALL="POSIX")
    assert done.returncode == 0
    assert "051d:0002" in done.stdout


def test_run_writes_history_and_log(program: Program) -> None:
    program.bus.plug_in("1-1", APC)
    done = program("run", TZ="Asia/Tokyo")
    # without NUT the run fails, with a message on standard error and in the log
    assert done.returncode == 1
    assert done.stdout == ""
    assert "ups.conf is not changed" in done.stderr
    line = program.log.read_text().splitlines()[0]
    assert re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8} \+0900 ", line)
    assert done.stderr.splitlines()[0] in line
    assert (program.log.stat().st_mode & 0o777) == 0o640
    status = program("status").stdout
    assert "ups.conf is not changed" in status


def test_unwritable_log_does_not_stop_a_run(program: Program) -> None:
    program.bus.plug_in("1-1", APC)
    program.log.symlink_to(program.root / "elsewhere")
    done = program("run")
    assert f"can't write {program.log}" in done.stderr
    assert "ups.conf is not changed" in done.stderr
    assert not (program.root / "elsewhere").exists()


def test_debug_messages_are_printed(program: Program) -> None:
    program.bus.plug_in("1-1", APC)
    assert "debug: upsd at 127.0.0.1:1 cannot be reached" in program("plan", "--debug").stderr
    program.policy["debug"] = True
    assert "debug: upsd at 127.0.0.1:1 cannot be reached" in program("run").stderr


def test_run_exits_with_75_if_another_run_holds_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []

    def busy(self: object, seconds: float = 0) -> Any:
        raise files.Busy("another run holds the lock")

    monkeypatch.setattr(nut_hotplug.HotplugHost, "hold_lock", busy)
    options = ["--policy", str(tmp_path / "none"), "--run-dir", str(tmp_path), "--log", str(tmp_path / "log")]
    assert nut_hotplug.main(["run", *options], messages.append, messages.append) == 75
    assert messages == ["another run holds the lock"]
    assert "another run holds the lock" in (tmp_path / "log").read_text()


def test_unreadable_bus_is_an_error(program: Program) -> None:
    program.policy["sysfs"] = str(program.root / "none")
    (program.root / "bin/lsusb").write_text("#!/bin/sh\necho broken\nexit 1\n")
    (program.root / "bin/lsusb").chmod(0o755)
    done = program("run")
    assert done.returncode == 1
    assert "can't read the USB bus" in done.stderr
    assert "can't read the USB bus" in program.log.read_text()


def test_run_without_changes_starts_no_program(program: Program) -> None:
    assert program("run").returncode == 0
    assert sorted(path.name for path in (program.root / "run").iterdir()) == ["homelab-nut.lock", "nut-hotplug.quiet"]
    # without options: if the quick check failed, the program would report that /etc/nut is missing
    (program.root / "bin/systemctl").write_text("#!/bin/sh\ntouch started\n")
    done = program.bare("run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_closed_pipe_causes_no_traceback(program: Program) -> None:
    command = f"{program.path} --help | true"
    done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
