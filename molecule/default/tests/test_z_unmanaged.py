# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine with a NUT client of its own, which Ansible does not log in to: a plain upsmon with the login of every Synology."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from homelab import CHECKOUT
from homelab.images import build_image
from homelab.podman import limit_options, run_podman
from support import wait_until

LOGIN = {"nut_client_user": "monuser", "nut_client_password": "secret"}
# it has no sshd and no Python
START = """
printf 'MODE=netclient\\n' > /etc/nut/nut.conf
printf 'MONITOR ups@pve8 1 monuser secret slave\\nSHUTDOWNCMD "/bin/true"\\nRUN_AS_USER root\\n' > /etc/nut/upsmon.conf
exec upsmon -F
"""


@pytest.fixture(scope="module")
def synology(lab, play, tmp_path_factory):
    """Start the machine without its upsmon, and return the inventory that has it, in addition to the lab's."""
    name = lab.container_name("synology")
    options = ("--detach", "--name", name, "--label", f"lab={lab.prefix}", "--network", lab.prefix, *limit_options())
    run_podman("run", *options, build_image("nut", "bookworm"), "sleep", "infinity")
    seen = json.loads(run_podman("inspect", "--type", "container", name).stdout)[0]
    address = seen["NetworkSettings"]["Networks"][lab.prefix]["IPAddress"]
    path = tmp_path_factory.mktemp("inventory") / "synology.json"
    host = {"ansible_host": address, "nut_client_primary": "pve8", **LOGIN}
    path.write_text(json.dumps({"unmanaged": {"hosts": {"synology": host}}}))
    yield path
    run_podman("rm", "--force", "--time", "0", name)
    # the scenario removes the lab; a long run leaves the primary as it was
    assert os.environ.get("TESTS") != "all" or play("--limit", "pve8").returncode == 0


@pytest.fixture(scope="module")
def deployed(synology, play):
    """Deploy the primary with the machine in the inventory, and return the play's result."""
    return play("--inventory", str(synology), "--limit", "pve8")


def test_unmanaged_machine_gets_a_login_and_uses_it(lab, on, synology, deployed):
    """The run says what to enter, and nothing tries ssh: the run would end with an unreachable host."""
    assert (
        "NOT logged in: synology (enter there: server pve8, UPS ups, user monuser, and the password in"
        in deployed.stdout
    )
    assert deployed.returncode == 2
    assert "synology  " not in deployed.stdout.partition("PLAY RECAP")[2]
    assert "unreachable=1" not in deployed.stdout
    run_podman("exec", "--detach", lab.container_name("synology"), "sh", "-c", START)
    host = on("pve8")
    address = json.loads(synology.read_text())["unmanaged"]["hosts"]["synology"]["ansible_host"]
    wait_until(lambda: address in host.run("upsc -c ups@localhost 2>/dev/null").stdout.split(), 30, "its login")
    status = json.loads(host.check_output("nut-shutdown status --json"))
    assert {machine["name"]: machine["up"] for machine in status["machines"]}["synology"]


@pytest.mark.long
def test_unmanaged_machine_is_counted_and_missed(lab, synology, deployed, play):
    """By the run, and by the doctor."""
    assert "NOT logged in: synology" in deployed.stdout
    done = play("--inventory", str(synology), "--limit", "pve8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "logged in: truenas, media, synology" in done.stdout
    run_podman("stop", "--time", "0", lab.container_name("synology"))
    command = [str(CHECKOUT / "tools" / "doctor"), "--json", "--inventory", str(CHECKOUT / "inventories" / "lab")]
    command += ["--inventory", str(synology), "--limit", "pve8"]
    asked = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    found = [row for row in json.loads(asked.stdout)["findings"] if row["host"] == "synology"]
    assert [(row["check"], row["verdict"]) for row in found] == [("login", "failure")], found
    assert "docs/clients.md" in found[0]["todo"]
