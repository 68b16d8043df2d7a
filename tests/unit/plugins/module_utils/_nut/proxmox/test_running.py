# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import running
from ansible_collections.homelab.nut.tests.unit.support import proxmox_commands

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEADER = "Num       RefCount Protocol Flags    Type St Inode Path\n"


class Node:
    """A Proxmox VE host below a directory. Its qm and pct say what the test says, by default that they fail."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("run/qemu-server", "var/lib/lxc", "proc/net", "etc/pve/local/qemu-server", "etc/pve/local/lxc"):
            (root / name).mkdir(parents=True)
        self.asked: list[list[str]] = []
        self.says: tuple[int, str] = (255, "")
        self.config_code: int | None = None
        self.write_sockets()

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        assert list(command[:2]) == ["timeout", "--kill-after=5"]
        words = list(command[3:])
        if words[0] == "test":
            return (not Path(words[2]).is_file() if self.config_code is None else self.config_code), ""
        self.asked.append(words)
        return self.says

    def add_vm(self, number: int, pid: int, *words: str, config: bool = True) -> None:
        (self.root / f"run/qemu-server/{number}.pid").write_text(f"{pid}\n")
        (self.root / f"proc/{pid}").mkdir(exist_ok=True)
        (self.root / f"proc/{pid}/cmdline").write_text("".join(f"{word}\0" for word in words))
        if config:
            self.add_config("qemu-server", number)

    def add_config(self, folder: str, number: int) -> None:
        (self.root / f"etc/pve/local/{folder}/{number}.conf").write_text("memory: 512\n")

    def write_sockets(self, *paths: str) -> None:
        lines = [f"0000000000000000: 00000002 00000000 00010000 0001 01 4242 {path}\n" for path in ("", *paths)]
        (self.root / "proc/net/unix").write_text("".join([HEADER, *lines]))

    def status(self, kind: str, number: int) -> str | None:
        return running.read_status(self.run, kind, number, self.root)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def pidfile(number: int) -> list[str]:
    return ["-id", str(number), "-name", "mail", "-pidfile", f"/var/run/qemu-server/{number}.pid", "-daemonize"]


@pytest.mark.parametrize(
    "program", ["/usr/bin/kvm", "kvm", "/usr/bin/qemu-system-aarch64", "qemu-system-x86_64", "/opt/kvm"]
)
def test_vm_with_process_runs(node: Node, program: str) -> None:
    node.add_vm(100, 4217, program, *pidfile(100))
    assert node.status("qm", 100) == "running"
    assert node.asked == []


def test_vm_runs_without_pmxcfs_and_perl(node: Node) -> None:
    node.add_vm(100, 4217, "/usr/bin/kvm", *pidfile(100), config=False)
    assert node.status("qm", 100) == "running"
    assert node.asked == []


@pytest.mark.parametrize(
    "words",
    [
        ["/usr/bin/kvm", *pidfile(1000)],
        ["/usr/bin/kvm", "-id", "100"],
        ["/usr/bin/kvm", "-pidfile", "-daemonize", "/var/run/qemu-server/100.pid"],
        ["/usr/bin/kvm", *pidfile(100), "-pidfile", "/run/other.pid"],
        ["/bin/sleep", *pidfile(100)],
        ["/usr/bin/kvm-ok", *pidfile(100)],
        [],
    ],
    ids=["another VM", "no pid file", "no value", "last one counts", "another program", "longer name", "zombie"],
)
def test_process_that_is_not_the_vm_does_not_count(node: Node, words: list[str]) -> None:
    node.add_vm(100, 4217, *words)
    assert node.status("qm", 100) == "stopped"
    assert node.asked == []


@pytest.mark.parametrize("text", ["", "4218\n", "nonsense\n", "-1\n", "4217 4217\n", "../4217\n"])
def test_pid_file_that_names_no_process_means_stopped(node: Node, text: str) -> None:
    node.add_vm(100, 4217, "/usr/bin/kvm", *pidfile(100))
    (node.root / "run/qemu-server/100.pid").write_text(text)
    assert node.status("qm", 100) == "stopped"


def test_vm_without_pid_file_is_stopped(node: Node) -> None:
    node.add_config("qemu-server", 100)
    assert node.status("qm", 100) == "stopped"
    assert node.asked == []


def test_container_with_socket_runs(node: Node) -> None:
    node.add_config("lxc", 200)
    node.write_sockets("/run/systemd/notify", "@/var/lib/lxc/2000/command", "@/var/lib/lxc/200/command")
    assert node.status("pct", 200) == "running"
    node.write_sockets("@/var/lib/lxc/2000/command", "/var/lib/lxc/200/command", "@/var/lib/lxc/200/command2")
    assert node.status("pct", 200) == "stopped"
    assert node.asked == []


@pytest.mark.parametrize(("kind", "folder"), [("qm", "qemu-server"), ("pct", "lxc")])
def test_guest_without_configuration_is_left_to_proxmox(node: Node, kind: str, folder: str) -> None:
    node.says = (2, f"Configuration file 'nodes/pve1/{folder}/999.conf' does not exist\n")
    assert node.status(kind, 999) == "gone"
    assert running.is_running(node.run, kind, 999, node.root) is None
    node.says = (255, "")
    assert node.status(kind, 999) is None


@pytest.mark.parametrize("code", [124, 137])
@pytest.mark.parametrize(("kind", "number"), [("qm", 100), ("pct", 200)])
def test_hanging_pmxcfs_does_not_hide_that_guest_is_down(node: Node, kind: str, number: int, code: int) -> None:
    node.config_code = code
    assert running.is_running(node.run, kind, number, node.root) is False
    assert node.asked == []


@pytest.mark.parametrize(
    ("kind", "gone"), [("qm", "run/qemu-server"), ("pct", "var/lib/lxc"), ("pct", "proc/net/unix")]
)
def test_host_where_processes_say_nothing_asks_proxmox(node: Node, kind: str, gone: str) -> None:
    path = node.root / gone
    path.rmdir() if path.is_dir() else path.unlink()
    node.add_config("qemu-server", 100)
    node.says = (0, "status: paused\n")
    assert node.status(kind, 100) == "running"
    assert node.asked == [[kind, "status", "100"]]


@pytest.mark.parametrize("row", proxmox_commands.STATUS, ids=lambda row: f"{row['code']} {row['output'].strip()}")
def test_recorded_status_is_understood(row: Mapping[str, Any], tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def run(command: Sequence[str]) -> tuple[int, str]:
        asked.append(list(command))
        return row["code"], row["output"]

    assert running.read_status(run, row["kind"], row["number"], tmp_path) == row["expected"]
    assert asked == [["timeout", "--kill-after=5", "15", row["kind"], "status", str(row["number"])]]


def test_running_guests_are_listed_by_their_processes(node: Node) -> None:
    node.add_vm(100, 4217, "/usr/bin/kvm", *pidfile(100))
    node.write_sockets("@/var/lib/lxc/201/command")
    guests = [("qm", 100), ("qm", 101), ("pct", 200), ("pct", 201)]
    assert running.list_running(node.run, guests, node.root) == {100, 201}
    assert node.asked == []


TABLES = {
    "qm": "      VMID NAME   STATUS     MEM(MB)    BOOTDISK(GB) PID       \n"
    "       100 running  stopped    512                 0.00 0         \n"
    "       101 stopped  paused     512               900.00 7         \n"
    "      1020 stopped  running    512               900.00 4217      \n",
    "pct": "VMID       Status     Lock         Name                \n"
    "200        stopped                 running             \n"
    "201        running                 stopped             \n",
}


def test_running_guests_are_listed_by_commands_where_processes_say_nothing(tmp_path: Path) -> None:
    found = running.list_running(lambda command: (0, TABLES[command[3]]), [("qm", 100)], tmp_path)
    assert found == {101, 1020, 201}


@pytest.mark.parametrize("broken", ["qm", "pct"])
def test_running_guests_are_unknown_if_qm_or_pct_fails(tmp_path: Path, broken: str) -> None:
    def run(command: Sequence[str]) -> tuple[int, str]:
        return int(command[3] == broken), TABLES[command[3]]

    assert running.list_running(run, [("qm", 100)], tmp_path) is None
