# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from homelab import CHECKOUT, Lab
from homelab.podman import LabError
from vm import client
from vm.client import Vm

CLI = CHECKOUT / "lab" / "vm" / "vm"


class Served:
    """A control socket that answers as it is told, and notes what it was asked."""

    def __init__(self, path: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, object] = {}
        self.first = threading.Event()
        path.parent.mkdir(parents=True)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                link, _unused = self._server.accept()
            except OSError:
                return
            with link, link.makefile("rwb") as stream:
                line = stream.readline()
                if line:
                    self.asked.append(json.loads(line))
                    self.first.set()
                    stream.write(json.dumps(self.answers.get(self.asked[-1]["command"], {"ok": True})).encode() + b"\n")

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)


@pytest.fixture
def vm(tmp_path: Path) -> Vm:
    """A machine of a lab in a folder of the test's."""
    return Vm("pve", Lab("unit", tmp_path))


@pytest.fixture
def served(vm: Vm) -> Iterator[Served]:
    """The same machine's process."""
    control = Served(vm.control)
    yield control
    control.close()


def make_image(folder: Path) -> Path:
    folder.mkdir()
    for name in ("disk", "vmlinuz", "initrd"):
        (folder / name).write_text(name)
    (folder / "host_key.pub").write_text("ssh-ed25519 AAAA lab\n")
    return folder


def test_invalid_names_are_refused(tmp_path: Path) -> None:
    for name in ("", "a b", "../x", "a/b"):
        with pytest.raises(LabError, match="letters, digits and hyphens"):
            Vm(name, Lab("unit", tmp_path))


def test_unknown_machine_is_reported(vm: Vm) -> None:
    with pytest.raises(LabError, match="lab/vm/vm pve up"):
        vm.read_record()
    with pytest.raises(LabError, match="lab/vm/vm pve up"):
        vm.send_command("status")
    assert not vm.is_answering()
    assert Vm.find_all(vm.lab) == []


def test_command_is_sent_and_answered(vm: Vm, served: Served) -> None:
    assert vm.send_command("snapshot", tag="x") == {"ok": True}
    assert served.asked == [{"command": "snapshot", "tag": "x"}]
    served.answers["kill"] = {"ok": False, "error": "the machine is off"}
    with pytest.raises(LabError, match="pve: the machine is off"):
        vm.cut_power()
    served.answers["boot"] = ["nonsense"]
    with pytest.raises(LabError, match="nonsense"):
        vm.boot_machine()
    assert vm.is_answering()


def test_control_socket_with_a_long_path(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    vm = Vm("pve", Lab("unit", deep))
    vm.control.parent.mkdir(parents=True)
    server = socket.socket(socket.AF_UNIX)
    directory = os.open(vm.control.parent, os.O_RDONLY)
    server.bind(f"/proc/self/fd/{directory}/control")
    server.listen()

    def serve() -> None:
        link, _unused = server.accept()
        with link:
            link.recv(4096)
            link.sendall(b'{"ok": true, "n": 1}\n')

    thread = threading.Thread(target=serve)
    thread.start()
    assert vm.send_command("status")["n"] == 1
    thread.join(5)
    server.close()
    os.close(directory)


def test_machine_folder_has_image_key_and_ssh_config(vm: Vm, tmp_path: Path) -> None:
    made_of = make_image(tmp_path / "image")
    vm._prepare_folder("trixie", made_of)
    assert (vm.folder.stat().st_mode & 0o777) == 0o700
    assert vm.read_record().release == "trixie"
    assert [machine.name for machine in Vm.find_all(vm.lab)] == ["pve"]
    # the image may vanish: the machine keeps what it is made of
    assert (vm.folder / "disk").samefile(made_of / "disk")
    config = vm.ssh_config.read_text()
    assert f"Port {vm.read_record().port}" in config
    assert "HostName 127.0.0.1" in config
    assert "StrictHostKeyChecking yes" in config
    assert (vm.folder / "known_hosts").read_text() == "pve ssh-ed25519 AAAA lab\n"
    key = (vm.folder / "id_ed25519.pub").read_text()
    (vm.folder / "left").touch()
    vm._prepare_folder("trixie", made_of)
    assert not (vm.folder / "left").exists()
    other = (vm.folder / "id_ed25519.pub").read_text()
    # a restored machine reads as many bytes of the key as there were when it was saved
    assert key != other
    assert len(key) == len(other)


def test_link_file_falls_back_to_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_unused: object) -> None:
        raise OSError("another file system")

    (tmp_path / "a").write_text("content")
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    client._link_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "content"
    assert not (tmp_path / "b").samefile(tmp_path / "a")


def test_start_machine_leaves_a_running_machine_alone(vm: Vm, served: Served, tmp_path: Path) -> None:
    vm.folder.mkdir(parents=True)
    (vm.folder / "machine.json").write_text('{"release": "trixie", "port": 1}')
    served.answers["status"] = {"ok": True, "machine": {"power": "on"}}
    vm.start_machine("trixie")
    assert {asked["command"] for asked in served.asked} == {"status"}
    with pytest.raises(LabError, match="pve is Debian trixie; remove it first: lab/vm/vm pve down"):
        vm.start_machine("bookworm")


def test_wait_until_up_fails_after_its_time(vm: Vm, served: Served) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        vm.folder.mkdir(parents=True)
        (vm.folder / "machine.json").write_text(json.dumps({"release": "trixie", "port": nobody.getsockname()[1]}))
        served.answers["status"] = {"ok": True, "machine": {"power": "off"}}
        with pytest.raises(LabError, match=r"did not boot .*console\.log"):
            vm.wait_until_up()


@pytest.mark.parametrize(("greeting", "there"), [(b"SSH-2.0-OpenSSH\r\n", True), (b"", False), (b"HTTP", False)])
def test_has_banner_recognizes_sshd(greeting: bytes, there: bool) -> None:
    """QEMU takes each connection, and closes it where nobody listens inside."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _unused = server.accept()
            with link:
                link.sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        assert client._has_banner(server.getsockname()[1]) is there
        thread.join(5)


def test_booted_machine_is_cached_if_possible(vm: Vm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vm.folder.mkdir(parents=True)
    (vm.folder / "disk.qcow2").write_text("state")
    kept = tmp_path / "booted.qcow2"
    vm._keep_snapshot(kept)
    assert kept.read_text() == "state"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob(".making*")] == []
    vm._keep_snapshot(tmp_path / "gone" / "booted.qcow2")
    assert "could not cache" in capsys.readouterr().err


def test_remove_machine_removes_every_file(vm: Vm) -> None:
    vm.folder.mkdir(parents=True)
    vm.control.parent.mkdir(parents=True)
    vm.remove_machine()
    assert not vm.folder.exists()
    assert not vm.control.parent.exists()
    vm.remove_machine()


def test_remove_machine_stops_the_process(vm: Vm, served: Served) -> None:
    def answer() -> None:
        served.first.wait(5)
        vm.control.unlink()

    thread = threading.Thread(target=answer)
    thread.start()
    vm.remove_machine()
    thread.join(5)
    assert served.asked == [{"command": "down"}]


def run_cli(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CLI), *words],
        check=False,
        text=True,
        capture_output=True,
        env={**os.environ, "LAB": "no-such"},
    )


def test_cli_reports_a_missing_machine() -> None:
    for words in (["pve", "status"], ["pve", "kill"], ["pve", "plug", "apc"], ["pve", "ssh"], ["pve", "restore", "x"]):
        done = run_cli(*words)
        assert done.returncode == 1, words
        assert "lab/vm/vm pve up" in done.stderr
    assert run_cli("a b", "status").stderr.startswith("lab/vm/vm: 'a b'")
    assert run_cli("pve", "explode").returncode == 2
    assert "qemu-system-x86" in run_cli("--help").stdout


def test_inventory_lists_machines(vm: Vm, tmp_path: Path) -> None:
    vm._prepare_folder("trixie", make_image(tmp_path / "image"))
    script = runpy.run_path(str(CHECKOUT / "molecule" / "vm" / "inventory" / "hosts.py"))
    seen = script["make_inventory"](Vm.find_all(vm.lab))
    assert seen["pve"] == {"hosts": ["pve"]}
    assert seen["_meta"]["hostvars"]["pve"]["ansible_port"] == vm.read_record().port
    assert str(vm.ssh_config) in seen["_meta"]["hostvars"]["pve"]["ansible_ssh_common_args"]
