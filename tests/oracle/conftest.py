# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT of each release that Debian ships, in containers. The library is tested against it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from homelab import CHECKOUT, Lab
from homelab.images import build_image
from homelab.podman import PODMAN, limit_options, run_podman

RELEASES = {"bookworm": (2, 8, 0), "trixie": (2, 8, 1)}
if os.environ.get("TESTS") == "all":
    RELEASES["forky"] = (2, 8, 5)

HERE = Path(__file__).parent
PLUGINS = CHECKOUT / "plugins"
INSIDE = "/opt/oracle/ansible_collections/homelab/nut/plugins"


class Nut:
    """NUT of one release, in a container that runs inside.py."""

    def __init__(self, debian: str) -> None:
        self.debian = debian
        self.version = RELEASES[debian]
        self.drivers = "/lib/nut" if self.version < (2, 8, 5) else "/usr/libexec/nut"  # their directory
        self._name = Lab("oracle").container_name(debian)
        run_podman("rm", "--force", "--ignore", "--time", "0", self._name)
        # The container ends with its input and is then removed, even if the tests crash.
        options = ["--rm", "--interactive", "--name", self._name, "--network", "none", *limit_options()]
        # root has this on a host; needed to examine and close upsd's sockets
        options += ["--cap-add", "SYS_PTRACE"]
        options += ["--volume", f"{HERE}:/opt/inside:ro", "--volume", f"{PLUGINS}:{INSIDE}:ro"]
        options += ["--env", "PYTHONPATH=/opt/oracle", "--env", "PYTHONDONTWRITEBYTECODE=1"]
        command = [*PODMAN, "run", *options, build_image("nut", debian), "python3", "/opt/inside/inside.py"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call_inside(self, operation: str, **arguments: Any) -> Any:
        """Run the function `operation` of inside.py with these arguments and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"operation": operation, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the container {self._name} has ended"
        answer = json.loads(line)
        assert "failed" not in answer, answer["failed"]
        return answer["answer"]

    def remove_container(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            run_podman("rm", "--force", "--ignore", "--time", "0", self._name)


@pytest.fixture(scope="session")
def debians() -> dict[str, tuple[int, int, int]]:
    """Return Debian's releases and the release of NUT in each."""
    return RELEASES


@pytest.fixture(scope="session", params=RELEASES)
def nut(request: pytest.FixtureRequest) -> Iterator[Nut]:
    container = Nut(request.param)
    yield container
    container.remove_container()
