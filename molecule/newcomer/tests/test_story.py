# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One story, told in the order of its tests: each begins where the one before has ended."""

from __future__ import annotations

import re
import shutil
import subprocess
import time

from homelab import run_podman
from support import wait_until

# what dummy-ups shows of a UPS, as a network UPS's owner would try it first
UPS_FILE = (
    "ups.status: {}\nbattery.charge: {}\nbattery.runtime: {}\nups.load: 20\nups.mfr: Acme\nups.model: Rack 1500\n"
)


def set_ups(newcomer, status, charge=100, runtime=3600):
    """Let the UPS of the primary, which runs, report this."""
    text = UPS_FILE.format(status, charge, runtime).replace("\n", "\\n")
    newcomer.run_ssh(
        "cellar", f"mkdir -p /etc/nut && printf '{text}' >/etc/nut/rack.new && mv /etc/nut/rack.new /etc/nut/rack.dev"
    )


def list_logins(newcomer):
    """Return the addresses that are logged in to the UPS."""
    listed = newcomer.run_ssh("cellar", "upsc -c rack@localhost 2>/dev/null || true").split()
    names = {address: name for name, address in newcomer.addresses.items()}
    return sorted(names.get(address, address) for address in listed if not address.startswith(("127.", "::1")))


def test_unknown_host_key_is_met_with_the_command_that_helps(newcomer):
    newcomer.edit_file(
        "hosts.yml",
        ("        proxmox:", "        cellar:"),
        ("        nas:", "        vault:"),
        ("        media:", "        desk:"),
        ("192.0.2.10", newcomer.addresses["cellar"]),
        ("192.0.2.20", newcomer.addresses["vault"]),
        ("192.0.2.30", newcomer.addresses["desk"]),
        ("ansible_user: root", "ansible_user: ops"),
    )
    port = newcomer.lab.read_hosts()["vault"]["api"]
    shutil.move(newcomer.inventory / "host_vars/nas.yml", newcomer.inventory / "host_vars/vault.yml")
    shutil.move(newcomer.inventory / "host_vars/media.yml", newcomer.inventory / "host_vars/desk.yml")
    with (newcomer.inventory / "host_vars/vault.yml").open("a") as file:
        file.write(f"nut_client_truenas_url: wss://127.0.0.1:{port}/api/current\n")
    newcomer.edit_file("host_vars/vault.yml", ("nut_client_shutdown_time: 90", "nut_client_shutdown_time: 20"))
    newcomer.edit_file(
        "group_vars/pve.yml",
        ("name: ups", "name: rack"),
        ("driver: auto", "driver: dummy-ups\n    port: rack.dev"),
    )
    output = newcomer.refuse("--check", "--diff")
    assert "the ssh host key of cellar is not known here" in output
    assert f"ops@{newcomer.addresses['cellar']}` once" in output


def test_user_without_root_is_told_to_become(newcomer):
    for name in ("cellar", "desk", "shed"):
        address = newcomer.addresses[name]
        ssh = ["ssh", "-F", str(newcomer.folder / "ssh_config"), "-o", "StrictHostKeyChecking=accept-new"]
        newcomer.run_local(*ssh, f"ops@{address}", "true")
    output = newcomer.refuse("--check", "--diff")
    assert "ops on cellar is not root" in output
    assert "ansible_become: true" in output


def test_check_mode_shows_the_whole_first_deployment(newcomer):
    with (newcomer.inventory / "group_vars/all.yml").open("w") as file:
        file.write("ansible_become: true\n")
    set_ups(newcomer, "OL")
    output = newcomer.refuse("--check", "--diff")
    fingerprint = re.search(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", output)
    assert fingerprint, output  # TrueNAS's certificate, which nobody has confirmed yet
    assert fingerprint[0].replace(":", "").lower() == newcomer.lab.read_fingerprint("vault")
    newcomer.edit_file("group_vars/truenas.yml", ("username: truenas_admin", "username: admin"))
    newcomer.edit_file("group_vars/truenas.yml", ('fingerprint: ""', f'fingerprint: "{fingerprint[0]}"'))
    output = newcomer.deploy("--check", "--diff")
    assert "RUN_AS_USER root" in output or "MONITOR rack@" in output
    assert newcomer.run_ssh("cellar", "ls /etc/nut") == "rack.dev\n"


def test_first_deployment_ends_with_the_list_of_logins(newcomer):
    output = newcomer.deploy()
    assert list_logins(newcomer) == ["desk", "vault"]
    assert "rack on cellar (OL): logged in: vault, desk" in output
    assert "NOT logged in" not in output


def test_second_deployment_changes_nothing(newcomer):
    output = newcomer.deploy()
    assert not re.search(r"changed=[1-9]", output)


def test_plan_doctor_and_status_are_content(newcomer):
    for name in ("plan", "status", "doctor"):
        status, output = newcomer.run_playbook(name)
        assert status == 0
        assert not re.search(r"changed=[1-9]", output)


def test_new_machine_alone_is_refused_before_anything_is_written(newcomer):
    """Its primary would not know its login."""
    newcomer.edit_file(
        "hosts.yml",
        (
            "ups_clients:\n      hosts:\n",
            "ups_clients:\n      hosts:\n        shed:\n          ansible_host: "
            f"{newcomer.addresses['shed']}\n          ansible_user: ops\n",
        ),
    )
    output = newcomer.refuse("--limit", "shed")
    assert "cellar,shed" in output
    assert newcomer.run_ssh("shed", "ls /etc/nut 2>/dev/null || true") == ""


def test_new_machine_joins_together_with_its_primary(newcomer):
    newcomer.deploy("--limit", "cellar,shed")
    assert list_logins(newcomer) == ["desk", "shed", "vault"]


def test_second_notebook_makes_no_new_passwords(newcomer):
    kept = newcomer.inventory / ".homelab-nut"
    away = newcomer.folder / "left at home"
    shutil.move(kept, away)
    output = newcomer.refuse()
    assert ".homelab-nut" in output
    assert list_logins(newcomer) == ["desk", "shed", "vault"]
    if kept.exists():
        shutil.rmtree(kept)
    shutil.move(away, kept)
    output = newcomer.deploy()
    assert not re.search(r"changed=[1-9]", output)


def test_refused_login_heals_at_the_next_run(newcomer):
    """NUT's upsmon does not try again once upsd knows its login."""
    users = "/etc/nut/upsd.users"
    newcomer.run_ssh(
        "cellar",
        f"cp -p {users} /run/users && sed -i '/^.desk/,/^$/s/password = .*/password = other/' {users} "
        "&& systemctl reload nut-server",
    )
    newcomer.run_ssh("desk", "systemctl restart nut-monitor")
    wait_until(lambda: "desk" not in list_logins(newcomer), 30, "desk to be refused")
    newcomer.run_ssh("cellar", f"cp -p /run/users {users} && systemctl reload nut-server")
    newcomer.deploy()
    wait_until(lambda: list_logins(newcomer) == ["desk", "shed", "vault"], 30, "desk to log in")


def test_power_cut_keeps_its_order(newcomer):
    cut = time.time()
    set_ups(newcomer, "OB", 90, 3000)
    time.sleep(8)
    set_ups(newcomer, "OB LB", 5, 400)
    lab = newcomer.lab
    wait_until(lambda: all(state.condition != "running" for state in lab.read_states().values()), 240, "all to be down")
    down = {host.name: state.down for host, state in lab.read_states().items()}
    assert all(down.values())
    assert max(down["vault"], down["desk"], down["shed"]) < down["cellar"]
    assert down["cellar"] - cut < 200


def test_all_come_back_and_status_begins_with_the_power_cut(newcomer):
    lab = newcomer.lab
    # before the start, as machines start when the mains are back: a primary that starts with a low battery shuts down again
    returned = newcomer.folder / "rack.dev"
    returned.write_text(UPS_FILE.format("OL", 60, 2400))
    run_podman("cp", str(returned), f"{lab.container_name('cellar')}:/etc/nut/rack.dev")
    for name in ("cellar", "vault", "desk", "shed"):
        run_podman("start", lab.container_name(name))
    wait_until(lambda: _answers(newcomer), 120, "cellar to boot")
    wait_until(lambda: list_logins(newcomer) == ["desk", "shed", "vault"], 120, "the secondaries to log in")
    status, output = newcomer.run_playbook("status")
    assert status == 0
    assert re.search(r"[Ll]ast power (cut|failure)", output), output


def _answers(newcomer):
    try:
        newcomer.run_ssh("cellar", "true")
    except subprocess.CalledProcessError:  # sshd is not there yet
        return False
    return True


def test_renamed_ups_is_renamed_everywhere(newcomer):
    newcomer.edit_file("group_vars/pve.yml", ("name: rack", "name: basement"))
    newcomer.deploy()
    assert newcomer.run_ssh("desk", "grep -c '^MONITOR basement@' /etc/nut/upsmon.conf") == "1\n"
    newcomer.edit_file("group_vars/pve.yml", ("name: basement", "name: rack"))
    newcomer.deploy()
    assert list_logins(newcomer) == ["desk", "shed", "vault"]


def test_machine_without_a_part_leaves_nothing_behind(newcomer):
    output = newcomer.deploy("--limit", "cellar,shed", nut_client_state="absent")
    assert output
    _status, output = newcomer.run_playbook("doctor", "--limit", "shed")
    assert "NUT was taken away here on purpose" in output
    assert "1 host, 2 checks: 1 warning, 1 ok" in output


def test_removal_is_no_fault(newcomer):
    newcomer.deploy(nut_server_state="absent", nut_client_state="absent")
    assert newcomer.run_ssh("cellar", "systemctl is-active nut-server nut-monitor; true").split() == [
        "inactive",
        "inactive",
    ]
    _status, output = newcomer.run_playbook("doctor")
    assert "on purpose" in output
