# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with NUT and a USB bus in a directory, for the modules that look at both."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils import _host, _hotplug
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.apply import LocalNut
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import reconcile
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, serve_answers
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import SysfsTree

ME = (os.getuid(), os.getgid())
UPS_CONF = '[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n'
ON_MAINS = 'BEGIN LIST VAR {0}\nVAR {0} ups.status "OL CHRG"\nEND LIST VAR {0}\n'
CLIENTS = "BEGIN LIST CLIENT {0}\nEND LIST CLIENT {0}\n"


class UsbHost:
    """A host: a folder with its files, running units, a bus, and upsd."""

    def __init__(self, root: Path, upsd: FakeUpsd) -> None:
        self.root, self.upsd, self.bus = root, upsd, SysfsTree(root / "usb")
        self.bus.root_hub()
        for folder in ("etc/nut", "run", "var/lib", "var/log/nut", "rules"):
            (root / folder).mkdir(parents=True)
        (root / "etc/nut/nut.conf").write_text("MODE=netserver\n")
        (root / "etc/nut/upsd.conf").write_text(f"LISTEN 127.0.0.1 {upsd.port}\n")
        self.conf = root / "etc/nut/ups.conf"
        self.conf.write_text(UPS_CONF)
        self.conf.chmod(0o640)
        (root / "rules/62-nut-usbups.rules").write_text(
            '#  Back-UPS  - usbhid-ups\nATTR{idVendor}=="051d", ATTR{idProduct}=="0002", MODE="664", GROUP="nut"\n'
        )
        self.told: list[str] = []
        self.refuses = ""
        self.serve_upses("ups")

    def serve_upses(self, *names: str) -> None:
        """Make upsd serve these UPSes, on mains."""
        self.upsd.answers["LIST UPS"] = (
            "BEGIN LIST UPS\n" + "".join(f'UPS {name} "x"\n' for name in names) + "END LIST UPS\n"
        )
        for name in names:
            self.upsd.answers[f"LIST VAR {name}"] = ON_MAINS.format(name)
            self.upsd.answers[f"LIST CLIENT {name}"] = CLIENTS.format(name)
            self.upsd.answers[f"GET VAR {name} ups.status"] = f'VAR {name} ups.status "OL CHRG"\n'

    @property
    def policy(self) -> dict[str, Any]:
        return {"sysfs": str(self.bus.sysfs), "dev": str(self.bus.dev)}

    def run_command(self, command: Sequence[str]) -> tuple[int, str]:
        if command[:2] == ["systemctl", "show"]:
            names = command[command.index("--") + 1 :]
            quiet = (systemd.WATCHER, systemd.ENUMERATOR)
            return 0, "\n".join(
                f"LoadState=loaded\nActiveState={'inactive' if name in quiet else 'active'}\n"
                f"UnitFileState={'disabled' if name in quiet else 'enabled'}\nMainPID=7\n"
                for name in names
            )
        if command[0] == "systemctl":
            self.told.append(f"{command[1]} {command[-1]}")
            return (1, "Job failed.") if self.refuses == self.told[-1] else (0, "")
        return (127, "not here") if command[0] == "lsusb" else (0, "")


@contextmanager
def usb_host(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UsbHost]:
    """Make modules run on a host below ROOT."""
    with serve_answers() as upsd:
        found = UsbHost(root, upsd)
        monkeypatch.setattr(_host, "ROOT", root)
        local = LocalNut.below_root(root, found.run_command)
        local = replace(local, owner=ME, finder=lambda name: Path("/lib/nut", name))
        monkeypatch.setattr(_host, "local_nut", lambda _module: local)
        monkeypatch.setattr(
            _hotplug,
            "HotplugHost",
            partial(
                reconcile.HotplugHost,
                release=(2, 8, 1),
                udev_tables=(root / "rules",),
                pause=lambda _seconds: None,
                boot=lambda: "this boot",
                proc=root / "proc",
            ),
        )
        yield found


def run_module(module: ModuleType, capfd: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    """Run the main function of a module and return its result."""
    with patch_module_args(options), pytest.raises(SystemExit) as end:
        module.main()
    result: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert bool(end.value.code) == bool(result.get("failed"))
    result.pop("invocation", None)
    if "warnings" in result:
        result["warnings"] = [warning["event"]["msg"] for warning in result["warnings"]]
    return result
