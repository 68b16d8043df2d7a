# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A large site: the names of UPSes, which machine each UPS powers, the rights of users, TLS, timers, secrets. One file, for one site."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar, upsd, upsmon
from ansible_collections.homelab.nut.plugins.module_utils._nut.inventory import SECRETS_FOLDER
from homelab import CHECKOUT
from support import extra_vars, nut_processes, read_passwords, read_status, show_unit, wait_until

PORT = 13493
HOSTS = ("rack", "rack-nas", "rack-media", "rack-db", "rack-web", "rack-old")
LINUX = ("rack-media", "rack-db", "rack-web", "rack-old")
WIRED = {
    "rack-left": {"rack-media"},
    "Rack_Right": {"rack-nas", "rack-db"},
    "desk-3_EATON": {"rack-web", "rack-old"},
}
UPS_OF = {client: ups for ups, clients in WIRED.items() for client in clients}
USERS = {
    "rack-nas": "nas_1",
    "rack-media": "rack-media",
    "rack-db": "The.DB",
    "rack-web": "web",
    "rack-old": "old-box",
}
DENIED = "ERR ACCESS-DENIED"

# Sends lines and prints one line of answer to each.
TALK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) as link:
    stream = link.makefile("rw", newline="\\n")
    for line in sys.argv[2:]:
        stream.write(line + "\\n")
        stream.flush()
        print(stream.readline().strip())
"""

# Connects to argv[1] with STARTTLS; its certificate must be valid for the name argv[3] by the authority argv[4].
TALK_TLS = """
import socket, ssl, sys
host, port, name, authority = sys.argv[1:]
context = ssl.create_default_context(cadata=authority)
with socket.create_connection((host, int(port)), 10) as link:
    link.sendall(b"STARTTLS\\n")
    print(link.recv(100).decode().strip())
    try:
        with context.wrap_socket(link, server_hostname=name) as safe:
            safe.sendall(b"GET UPSDESC desk-3_EATON\\n")
            print(safe.recv(100).decode().strip(), safe.version())
    except ssl.SSLCertVerificationError as error:
        print(error.verify_message)
"""

# Runs upsmon with the host's upsmon.conf but another directory of certificates, for a few seconds and without a SHUTDOWNCMD.
OTHER_UPSMON = """
set -eu
dir=$(mktemp -d /run/other-XXXXXX)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
certificates=$(sed -n 's/^CERTPATH *"*\\([^"]*\\)"*$/\\1/p' /etc/nut/upsmon.conf)
if [ "$1" = wrong ]; then
    certificates=$dir/wrong
    mkdir "$certificates"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other \
        -keyout "$dir/key" -out "$dir/ca.pem" 2>/dev/null
    certutil -N -d "sql:$certificates" --empty-password
    certutil -A -d "sql:$certificates" -n ca -t TC,, -a -i "$dir/ca.pem"
    chmod -R a+rX "$certificates"
fi
sed -e '/^POWERDOWNFLAG/d' -e '/^NOTIFY/d' -e 's|^SHUTDOWNCMD.*|SHUTDOWNCMD "/bin/true"|' \
    -e "s|^CERTPATH.*|CERTPATH \\"$certificates\\"|" /etc/nut/upsmon.conf >"$dir/upsmon.conf"
ln -s /lib/nut/upsmon "$dir/upsmon-other"
NUT_CONFPATH=$dir NUT_ALTPIDPATH=$dir timeout 6 "$dir/upsmon-other" -DD -F 2>&1 || true
"""


@pytest.fixture(scope="module")
def users(on):
    """Return the users of upsd: name -> password."""
    output = on("rack").file("/etc/nut/upsd.users").content_string
    return {name: user.password for name, user in upsd.read_users(output).items()}


@pytest.fixture(scope="module")
def secrets(inventory: Path, users):
    """Return every secret: passwords, passwords of the certificate databases, lines of private keys."""
    found = {*read_passwords(inventory), *users.values()}
    for path in (inventory / SECRETS_FOLDER / "tls").rglob("*"):
        if path.is_file() and "PRIVATE KEY" in path.read_text():
            found |= {line for line in path.read_text().splitlines() if len(line) > 40}
    return found


@pytest.fixture(scope="module")
def talk(on):
    """Return a function that sends lines to upsd and returns its answers."""
    return lambda *lines: (
        on("rack").check_output("python3 -c %s %s" + " %s" * len(lines), TALK, str(PORT), *lines).splitlines()
    )


@pytest.fixture(scope="module")
def as_user(talk, users):
    """Return a function that logs in to upsd as one of its users, sends lines and returns the answers."""

    def talk_as(user: str, *lines: str) -> list[str]:
        welcome, taken, *answers = talk(f"USERNAME {user}", f"PASSWORD {users[user]}", *lines)
        assert (welcome, taken) == ("OK", "OK")
        return answers

    return talk_as


def read_variables(host, ups: str) -> dict[str, str]:
    """Return upsd's variables of a UPS."""
    output = host.check_output("upsc %s@localhost:%s 2>/dev/null", ups, str(PORT))
    return dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)


def test_each_ups_is_served_under_its_name(on, site):
    """Two are of the same model; a mix-up would shut down the wrong hosts."""
    for device in site["nut_server_devices"]:
        output = read_variables(on("rack"), device["name"])
        assert output["device.serial"] == device["serial"]
        assert output["ups.status"].split()[0] == "OL"
    assert on("rack").check_output("upsc -l localhost:%s 2>/dev/null", str(PORT)).split() == list(WIRED)


def test_ups_on_battery_is_reported_under_its_name(on, lab):
    """Checked against the port of the emulated hardware."""
    assert [ups["serial"] for ups in json.loads(lab.control_ups("rack", "status", "--json"))["upses"]][
        1
    ] == "5B1234T56790"
    lab.control_ups("rack", "mains", "off", "--port", "2")
    try:
        wait_until(lambda: read_status(on("rack"), "Rack_Right", PORT)[:1] == ["OB"], 30, "the UPS to be on battery")
        assert read_status(on("rack"), "rack-left", PORT)[:1] == ["OL"]
    finally:
        lab.control_ups("rack", "mains", "on", "--port", "2")
    wait_until(lambda: read_status(on("rack"), "Rack_Right", PORT)[:1] == ["OL"], 30, "the UPS to be on mains again")


def test_descriptions_survive_nuts_parser(on, site):
    """They contain quotes, number signs and backslashes."""
    output = on("rack").check_output("upsc -L localhost:%s 2>/dev/null", str(PORT)).splitlines()
    assert output == [f"{device['name']}: {device['desc']}" for device in site["nut_server_devices"]]


def test_options_reach_only_their_driver(on):
    """Checked by the variables that each driver reports."""
    left, right, desk = (read_variables(on("rack"), ups) for ups in WIRED)
    assert (left["ups.delay.shutdown"], left["ups.delay.start"]) == ("30", "60")
    assert (right["ups.delay.shutdown"], right["ups.delay.start"]) == ("20", "30")
    assert left["driver.flag.pollonly"] == "enabled"
    assert "driver.flag.pollonly" not in right
    assert (left["battery.charge.low"], right["battery.charge.low"]) == ("35", "10")
    assert right["driver.parameter.default.battery.type"] == "Pb#Ac"
    assert right["ups.temperature"] == "21.5"
    assert (left["driver.parameter.pollinterval"], right["driver.parameter.pollinterval"]) == ("2", "3")
    assert (right["driver.parameter.pollfreq"], desk["driver.parameter.pollfreq"]) == ("20", "30")
    assert desk["driver.parameter.product"] == "Ellipse.*"


def test_host_needs_both_power_supplies(on):
    """The third UPS powers other hosts only."""
    output = on("rack").file("/etc/nut/upsmon.conf").content_string
    assert {monitor.ups: monitor.power for monitor in upsmon.read_monitors(output)} == {
        "rack-left": 1,
        "Rack_Right": 1,
        "desk-3_EATON": 0,
    }
    assert grammar.find_directive(output, "MINSUPPLIES") == "2"


@pytest.mark.parametrize("ups", WIRED)
def test_each_client_is_logged_in_to_its_ups(on, ups):
    """Exactly these clients, and the primary's own upsmon."""
    rack = on("rack")
    clients = rack.check_output("upsc -c %s@localhost:%s 2>/dev/null", ups, str(PORT)).split()
    addresses = {rack.check_output("getent ahostsv4 %s", name).split()[0] for name in WIRED[ups]}
    own = set(clients) - addresses
    assert addresses < set(clients)
    assert own <= {"127.0.0.1", "::1", rack.check_output("getent ahostsv4 rack").split()[0]}
    assert len(own) == 1


def test_upsd_listens_on_configured_addresses_only(on):
    """Two addresses with a port other than 3493; sshd is the only other listener."""
    rack = on("rack")
    address = rack.check_output("getent ahostsv4 rack").split()[0]
    listening = [line.split()[3] for line in rack.check_output("ss -ltnH").splitlines()]
    assert sorted(address for address in listening if not address.endswith(":22")) == sorted(
        [f"127.0.0.1:{PORT}", f"{address}:{PORT}"]
    )


# Rights of users


def test_every_user_can_log_in(as_user):
    """Each with its own password, to its own UPS."""
    for client, ups in UPS_OF.items():
        assert as_user(USERS[client], f"LOGIN {ups}", "LOGOUT") == ["OK", "OK Goodbye"], client
    assert as_user("rack-primary", "LOGIN rack-left", "LOGOUT") == ["OK", "OK Goodbye"]


def test_upsd_users_has_exactly_the_expected_users(users):
    """No two share a password, except where the inventory says so."""
    assert set(users) == {"rack-primary", "admin", "dashboard", *USERS.values()}
    assert users["admin"] == users["old-box"]
    assert len(set(users.values())) == len(users) - 1


def test_wrong_password_is_denied(talk):
    """Otherwise the other tests would prove nothing."""
    assert talk("USERNAME old-box", "PASSWORD wrong", "LOGIN desk-3_EATON") == ["OK", "OK", DENIED]
    assert talk("SET VAR rack-left ups.delay.start 61") == ["ERR USERNAME-REQUIRED"]


@pytest.mark.parametrize("user", [*USERS.values(), "dashboard"])
def test_secondaries_and_dashboard_can_change_nothing(as_user, user):
    """No variables, no outlets, no FSD."""
    lines = [
        "SET VAR rack-left ups.delay.start 61",
        "INSTCMD rack-left beeper.disable",
        "INSTCMD rack-left load.off",
        "PRIMARY rack-left",
        "FSD rack-left",
    ]
    assert as_user(user, *lines) == [DENIED] * len(lines)


def test_dashboard_can_not_log_in_as_a_secondary(as_user):
    """A login would delay the shutdown."""
    assert as_user("dashboard", "LOGIN rack-left") == [DENIED]


def test_primary_can_request_fsd_but_change_no_variable(as_user):
    lines = ["PRIMARY rack-left", "SET VAR rack-left ups.delay.start 61", "INSTCMD rack-left load.off"]
    assert as_user("rack-primary", *lines) == ["OK PRIMARY-GRANTED", DENIED, DENIED]


def test_administrator_has_exactly_the_rights_in_the_inventory(on, as_user):
    """SET and two commands, but no command that cuts the power."""
    rack = on("rack")
    assert as_user("admin", "SET VAR Rack_Right ups.delay.start 61", "INSTCMD Rack_Right beeper.disable") == [
        "OK",
        "OK",
    ]
    wait_until(lambda: read_variables(rack, "Rack_Right")["ups.delay.start"] == "61", 10, "the variable to change")
    wait_until(
        lambda: read_variables(rack, "Rack_Right")["ups.beeper.status"] == "disabled", 40, "the beeper to be disabled"
    )
    assert read_variables(rack, "rack-left")["ups.beeper.status"] == "enabled"
    assert as_user("admin", "SET VAR Rack_Right ups.delay.start 30", "INSTCMD Rack_Right beeper.enable") == ["OK", "OK"]
    lines = [
        "INSTCMD Rack_Right load.off",
        "INSTCMD Rack_Right shutdown.return",
        "PRIMARY Rack_Right",
        "FSD Rack_Right",
    ]
    assert as_user("admin", *lines) == [DENIED] * len(lines)
    assert as_user("admin", "LOGIN Rack_Right") == [DENIED]


# TLS


@pytest.mark.parametrize("name", ["rack-db", "rack-old"])
def test_client_can_verify_the_primary(on, inventory, name):
    """The certificate is valid for the primary's name and for no other."""
    authority = (inventory / SECRETS_FOLDER / "tls" / "ca.pem").read_text()
    talk = ("python3 -c %s rack %s %s %s", TALK_TLS, str(PORT))
    answer, output = on(name).check_output(*talk, "rack", authority).splitlines()
    assert answer == "OK STARTTLS"
    assert output.startswith('UPSDESC desk-3_EATON "\\#"')
    assert output.split()[-1] in ("TLSv1.2", "TLSv1.3")
    answer, output = on(name).check_output(*talk, "rack-nas", authority).splitlines()
    assert answer == "OK STARTTLS"
    assert "rack-nas" in output
    assert "UPSDESC" not in output


@pytest.mark.parametrize("name", ["rack-db", "rack-old"])
def test_client_with_another_authority_does_not_log_in(on, name):
    """Tested with the upsmon of each release; with the right authority it logs in."""
    right = on(name).check_output("sh -c %s sh right", OTHER_UPSMON)
    wrong = on(name).check_output("sh -c %s sh wrong", OTHER_UPSMON)
    assert "Logged into UPS" in right, right
    assert "Logged into UPS" not in wrong, wrong


@pytest.mark.parametrize("name", ["rack", *LINUX])
def test_upsmon_never_logs_in_in_clear_text(on, name):
    """Without these two directives upsmon falls back to clear text if something is wrong with the certificates."""
    output = on(name).file("/etc/nut/upsmon.conf").content_string
    assert grammar.find_directive(output, "FORCESSL") == "1"
    assert grammar.find_directive(output, "CERTVERIFY") == "1"


def test_keys_are_readable_by_root_and_nut_only(on):
    """upsd runs as nut; no other user may be able to impersonate it."""
    rack = on("rack")
    folder = grammar.find_directive(rack.file("/etc/nut/upsd.conf").content_string, "CERTPATH")
    listed = rack.check_output("find %s -printf '%%y %%m %%u %%g %%p\\n'", folder).splitlines()
    assert any(line.endswith("/key4.db") for line in listed)
    for line in listed:
        kind, mode, user, group, _path = line.split(maxsplit=4)
        assert (user, group) == ("root", "nut"), line
        assert not int(mode, 8) & ~(0o750 if kind == "d" else 0o640), line


def extract_public_key(path: Path) -> str:
    """Return the public key of a private key on the controller."""
    done = subprocess.run(["openssl", "pkey", "-in", path, "-pubout"], check=True, text=True, capture_output=True)
    return done.stdout


def test_no_host_has_the_key_of_the_authority(on, inventory):
    """With the key, a host could impersonate any other. No certificate database holds it either."""
    public = subprocess.run(
        ["openssl", "x509", "-in", inventory / SECRETS_FOLDER / "tls" / "ca.pem", "-noout", "-pubkey"],
        check=True, text=True, capture_output=True,
    ).stdout  # fmt: skip
    keys = [
        path
        for path in (inventory / SECRETS_FOLDER / "tls").rglob("*")
        if path.is_file() and "PRIVATE KEY" in path.read_text()
    ]
    (key,) = [path for path in keys if extract_public_key(path) == public]
    assert key.stat().st_mode & 0o077 == 0
    line = max(key.read_text().splitlines(), key=len)
    for name in HOSTS:
        host = on(name)
        assert (
            host.run("grep -rlF -e %s /etc /var/lib /var/tmp /root /tmp /run /usr/local /srv /home", line).stdout == ""
        ), name
        for path in host.check_output("find / -xdev -name cert9.db 2>/dev/null; true").split():
            listed = host.check_output("certutil -L -d %s", f"sql:{Path(path).parent}")
            trust = re.findall(r"\s([A-Za-z]*,[A-Za-z]*,[A-Za-z]*)\s*$", listed, re.MULTILINE)
            assert trust, f"{name}: {path}"
            # C or T: a trusted authority; u: the database has its private key too
            assert not [flags for flags in trust if set("CT") & set(flags) and "u" in flags], f"{name}: {path}"


# Events


def test_timers_fire_and_are_cancelled(on, lab):
    """One timer fires; one is cancelled because the mains return; EXECUTE runs at once."""
    rack = on("rack")

    def read_events() -> list[str]:
        return rack.run("cat /run/nut/ups-events 2>/dev/null").stdout.split()

    rack.check_output("rm -f /run/nut/ups-events")
    lab.control_ups("rack", "mains", "off", "--port", "1")
    try:
        wait_until(lambda: "at-once" in read_events(), 20, "NUT to notice the power cut")
        assert "short" not in read_events()
        wait_until(lambda: "short" in read_events(), 10, "the short timer to fire")
    finally:
        lab.control_ups("rack", "mains", "on", "--port", "1")
    wait_until(lambda: "short-was-over" in read_events(), 20, "NUT to notice that the mains are back")
    wait_until(lambda: rack.run("pgrep -x upssched").rc == 1, 30, "upssched to end")
    assert read_events() == ["at-once", "short", "short-was-over"]
    output = rack.check_output("journalctl -u nut-monitor -n 50 -o cat")
    assert 'UPS rack-left@localhost:13493: "on battery", says #1 \\ NUT' in output
    assert all(read_status(rack, ups, PORT)[:1] == ["OL"] for ups in WIRED)


# A second play


def test_second_play_restarts_nothing_and_shows_no_secret(on, play, secrets):
    """Checked by the processes, and with the most verbose output."""
    before = {name: nut_processes(on(name)) for name in HOSTS}
    assert all(before.values())
    done = play("-vvv", "--diff")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == len(HOSTS)
    assert all(before[name].items() <= nut_processes(on(name)).items() for name in HOSTS)
    assert_shows_no_secret(done, secrets)


def test_changed_description_restarts_only_its_driver(on, play, site, secrets):
    """The diff shows no secret."""
    rack = on("rack")
    names = {ups: f"nut-driver@{ups}" for ups in WIRED}
    drivers = {ups: show_unit(rack, name) for ups, name in names.items()}
    daemons = {name: show_unit(rack, name) for name in ("nut-server", "nut-monitor")}
    assert "0" not in (*drivers.values(), *daemons.values())
    devices = [
        {**device, "desc": "another # text"} if device["name"] == "Rack_Right" else device
        for device in site["nut_server_devices"]
    ]
    done = play("--limit", "rack", "-vvv", "--diff", *extra_vars(nut_server_devices=devices))
    assert done.returncode == 0, done.stdout
    after = {ups: show_unit(rack, name) for ups, name in names.items()}
    assert [ups for ups in WIRED if after[ups] != drivers[ups]] == ["Rack_Right"]
    assert "Rack_Right: another # text" in rack.check_output("upsc -L localhost:%s 2>/dev/null", str(PORT)).splitlines()
    assert daemons == {name: show_unit(rack, name) for name in daemons}
    assert "another" in done.stdout
    assert_shows_no_secret(done, secrets)
    done = play("--limit", "rack", "--diff")
    assert done.returncode == 0, done.stdout


def test_diff_of_changed_passwords_shows_no_secret(on, play, secrets):
    """In check mode, with a diff of users, MONITOR lines and keys."""
    wanted = {"nut_client_password": "Another.Password-1", "nut_server_password": "Another.Password-2"}
    done = play("--check", "--diff", "-vvv", *extra_vars(**wanted, nut_server_replace_secrets=True))
    assert "upsd.users" in done.stdout
    assert_shows_no_secret(done, {*secrets, *wanted.values()} - {""})


def assert_shows_no_secret(done, secrets) -> None:
    """Fail if a play's output contains a secret."""
    output = done.stdout + done.stderr
    assert "PRIVATE KEY" not in output
    assert not [secret for secret in secrets if secret in output]


# Files beside the inventory


def test_ansible_does_not_read_secrets_as_inventory(inventory):
    """Otherwise the names of password files would become hosts."""
    command = ["ansible-inventory", "--inventory", str(inventory), "--list"]
    done = subprocess.run(command, check=True, text=True, capture_output=True, cwd=CHECKOUT)
    groups = json.loads(done.stdout)
    assert {host for group in groups.values() for host in group.get("hosts", ())} == set(HOSTS)


def test_git_ignores_every_generated_secret(inventory, secrets):
    """Except those that the inventory itself contains."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, text=True, capture_output=True, cwd=CHECKOUT).stdout.split("\0")
    given = (inventory / "group_vars" / "pve.yml").read_text()
    made = [secret for secret in secrets if secret not in given]
    assert len(made) > len(USERS)
    for name in filter(None, listed):
        path = CHECKOUT / name
        if path.is_file():
            text = path.read_text(errors="replace")
            assert not any(secret in text for secret in made), name
