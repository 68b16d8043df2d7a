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
    """Start the machine, and return the inventory that has it, in addition to the lab's. Remove both in the end."""
    name = lab.container_name("synology")
    options = ("--detach", "--name", name, "--label", f"lab={lab.prefix}", "--network", lab.prefix, *limit_options())
    run_podman("run", *options, build_image("nut", "bookworm"), "sh", "-c", START)
    seen = json.loads(run_podman("inspect", "--type", "container", name).stdout)[0]
    address = seen["NetworkSettings"]["Networks"][lab.prefix]["IPAddress"]
    path = tmp_path_factory.mktemp("inventory") / "synology.json"
    host = {"ansible_host": address, "nut_client_primary": "pve8", **LOGIN}
    path.write_text(json.dumps({"unmanaged": {"hosts": {"synology": host}}}))
    yield path
    run_podman("rm", "--force", "--time", "0", name)
    assert play("--limit", "pve8").returncode == 0  # takes the login away


@pytest.fixture(scope="module")
def deployed(synology, play):
    """Deploy the primary with the machine in the inventory, and return the play's result."""
    return play("--inventory", str(synology), "--limit", "pve8")


def test_unmanaged_machine_logs_in_and_is_counted(on, synology, deployed):
    """Nothing tries ssh: the run would end with an unreachable host."""
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert "logged in: truenas, media, synology" in deployed.stdout
    recap = deployed.stdout.partition("PLAY RECAP")[2]
    assert "synology" not in recap
    host = on("pve8")
    assert "[monuser]" in host.file("/etc/nut/upsd.users").content_string
    address = json.loads(synology.read_text())["unmanaged"]["hosts"]["synology"]["ansible_host"]
    wait_until(lambda: address in host.run("upsc -c ups@localhost 2>/dev/null").stdout.split(), 20, "its login")
    status = json.loads(host.check_output("nut-shutdown status --json"))
    assert {machine["name"]: machine["up"] for machine in status["machines"]}["synology"]


@pytest.mark.long
def test_unmanaged_machine_that_is_off_is_reported(lab, synology, deployed, play):
    """By the run, with what to enter there, and by the doctor."""
    assert deployed.returncode == 0
    run_podman("stop", "--time", "0", lab.container_name("synology"))
    done = play("--inventory", str(synology), "--limit", "pve8")
    assert done.returncode == 2
    assert (
        "NOT logged in: synology (enter there: server pve8, UPS ups, user monuser, and the password in" in done.stdout
    )
    command = [str(CHECKOUT / "tools" / "doctor"), "--json", "--inventory", str(CHECKOUT / "inventories" / "lab")]
    command += ["--inventory", str(synology), "--limit", "pve8"]
    asked = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    found = [row for row in json.loads(asked.stdout)["findings"] if row["host"] == "synology"]
    assert [(row["check"], row["verdict"]) for row in found] == [("login", "failure")], found
    assert "docs/clients.md" in found[0]["todo"]
    run_podman("start", lab.container_name("synology"))
