# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A large site as it stands: which UPS is served as what, who hangs on which, who may do what, who can listen in."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
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

# One line there, one line back.
TALK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) as link:
    stream = link.makefile("rw", newline="\\n")
    for line in sys.argv[2:]:
        stream.write(line + "\\n")
        stream.flush()
        print(stream.readline().strip())
"""

# STARTTLS to argv[1], whose certificate must be good for the name argv[3] by the authority argv[4].
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

# The host's own upsmon.conf, but with another folder of certificates. It must not shut down anything, and not log in for long.
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
def site(inventory: Path):
    """Return what the inventory says of the primary."""
    return yaml.safe_load((inventory / "group_vars" / "pve.yml").read_text())


@pytest.fixture(scope="module")
def users(on):
    """Return the users of upsd: name -> password."""
    told = on("rack").file("/etc/nut/upsd.users").content_string
    return {name: user.password for name, user in upsd.read_users(told).items()}


@pytest.fixture(scope="module")
def secrets(inventory: Path, users):
    """Return everything that nobody may see: passwords, what opens the certificates' databases, private keys."""
    found = {*read_passwords(inventory), *users.values()}
    for path in (inventory / SECRETS_FOLDER / "tls").rglob("*"):
        if path.is_file() and "PRIVATE KEY" in path.read_text():
            found |= {line for line in path.read_text().splitlines() if len(line) > 40}
    return found


@pytest.fixture(scope="module")
def talk(on):
    """Return a function that says lines to upsd, and returns its answers."""
    return lambda *lines: (
        on("rack").check_output("python3 -c %s %s" + " %s" * len(lines), TALK, str(PORT), *lines).splitlines()
    )


@pytest.fixture(scope="module")
def as_user(talk, users):
    """Return a function that says lines to upsd as one of its users, with the password as upsmon sends it: as it is."""

    def say(user: str, *lines: str) -> list[str]:
        welcome, taken, *answers = talk(f"USERNAME {user}", f"PASSWORD {users[user]}", *lines)
        assert (welcome, taken) == ("OK", "OK")
        return answers

    return say


def served(host, ups: str) -> dict[str, str]:
    """Return what upsd knows of a UPS."""
    told = host.check_output("upsc %s@localhost:%s 2>/dev/null", ups, str(PORT))
    return dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)


def test_each_ups_is_served_under_its_name(on, site):
    """Two are of one model: a mix-up would shut down the wrong hosts."""
    for device in site["nut_server_devices"]:
        told = served(on("rack"), device["name"])
        assert told["device.serial"] == device["serial"]
        assert told["ups.status"].split()[0] == "OL"
    assert on("rack").check_output("upsc -l localhost:%s 2>/dev/null", str(PORT)).split() == list(WIRED)


def test_a_ups_goes_on_battery_under_its_own_name(on, lab):
    """The hardware's word: which port is which."""
    assert [one["serial"] for one in json.loads(lab.control_ups("rack", "status", "--json"))["upses"]][
        1
    ] == "5B1234T56790"
    lab.control_ups("rack", "mains", "off", "--port", "2")
    try:
        wait_until(lambda: read_status(on("rack"), "Rack_Right", PORT)[:1] == ["OB"], 30, "on battery")
        assert read_status(on("rack"), "rack-left", PORT)[:1] == ["OL"]
    finally:
        lab.control_ups("rack", "mains", "on", "--port", "2")
    wait_until(lambda: read_status(on("rack"), "Rack_Right", PORT)[:1] == ["OL"], 30, "on mains again")


def test_descriptions_come_back_as_they_are(on, site):
    """Quotes, number signs and backslashes mean something to NUT's parser."""
    told = on("rack").check_output("upsc -L localhost:%s 2>/dev/null", str(PORT)).splitlines()
    assert told == [f"{device['name']}: {device['desc']}" for device in site["nut_server_devices"]]


def test_options_reach_their_driver_and_no_other(on):
    """What a driver says of itself."""
    left, right, desk = (served(on("rack"), ups) for ups in WIRED)
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


def test_the_host_needs_both_its_power_supplies(on):
    """The third UPS feeds others only."""
    told = on("rack").file("/etc/nut/upsmon.conf").content_string
    assert {one.ups: one.power for one in upsmon.read_monitors(told)} == {
        "rack-left": 1,
        "Rack_Right": 1,
        "desk-3_EATON": 0,
    }
    assert grammar.find_directive(told, "MINSUPPLIES") == "2"


@pytest.mark.parametrize("ups", WIRED)
def test_each_client_hangs_on_its_ups(on, ups):
    """Exactly those, and this host's own upsmon: upsd lists who really logged in."""
    rack = on("rack")
    clients = rack.check_output("upsc -c %s@localhost:%s 2>/dev/null", ups, str(PORT)).split()
    addresses = {rack.check_output("getent ahostsv4 %s", name).split()[0] for name in WIRED[ups]}
    own = set(clients) - addresses
    assert addresses < set(clients)
    assert own <= {"127.0.0.1", "::1", rack.check_output("getent ahostsv4 rack").split()[0]}
    assert len(own) == 1


def test_upsd_listens_where_it_should_and_nowhere_else(on):
    """Two addresses, another port than NUT's; everything else on this host is sshd."""
    rack = on("rack")
    address = rack.check_output("getent ahostsv4 rack").split()[0]
    listening = [line.split()[3] for line in rack.check_output("ss -ltnH").splitlines()]
    assert sorted(one for one in listening if not one.endswith(":22")) == sorted(
        [f"127.0.0.1:{PORT}", f"{address}:{PORT}"]
    )


# Who may do what


def test_every_login_works(as_user):
    """Each with its own password, at its own UPS."""
    for client, ups in UPS_OF.items():
        assert as_user(USERS[client], f"LOGIN {ups}", "LOGOUT") == ["OK", "OK Goodbye"], client
    assert as_user("rack-primary", "LOGIN rack-left", "LOGOUT") == ["OK", "OK Goodbye"]


def test_there_are_no_other_users(users):
    """And no two have one password, but where the inventory says so."""
    assert set(users) == {"rack-primary", "admin", "dashboard", *USERS.values()}
    assert users["admin"] == users["old-box"]
    assert len(set(users.values())) == len(users) - 1


def test_a_wrong_password_opens_nothing(talk):
    """To see that the others prove something."""
    assert talk("USERNAME old-box", "PASSWORD wrong", "LOGIN desk-3_EATON") == ["OK", "OK", DENIED]
    assert talk("SET VAR rack-left ups.delay.start 61") == ["ERR USERNAME-REQUIRED"]


@pytest.mark.parametrize("user", [*USERS.values(), "dashboard"])
def test_others_can_change_nothing(as_user, user):
    """Not a value, not the UPS's outlets, not everybody's power."""
    lines = [
        "SET VAR rack-left ups.delay.start 61",
        "INSTCMD rack-left beeper.disable",
        "INSTCMD rack-left load.off",
        "PRIMARY rack-left",
        "FSD rack-left",
    ]
    assert as_user(user, *lines) == [DENIED] * len(lines)


def test_a_dashboard_counts_as_nobody(as_user):
    """A login of its own would delay the shutdown."""
    assert as_user("dashboard", "LOGIN rack-left") == [DENIED]


def test_the_primary_can_do_what_it_must_and_no_more(as_user):
    """It may force a shutdown; it has no business with the UPS's values."""
    lines = ["PRIMARY rack-left", "SET VAR rack-left ups.delay.start 61", "INSTCMD rack-left load.off"]
    assert as_user("rack-primary", *lines) == ["OK PRIMARY-GRANTED", DENIED, DENIED]


def test_an_administrator_can_do_what_the_inventory_says(on, as_user):
    """SET, and two commands; nothing that takes the power away."""
    rack = on("rack")
    assert as_user("admin", "SET VAR Rack_Right ups.delay.start 61", "INSTCMD Rack_Right beeper.disable") == [
        "OK",
        "OK",
    ]
    wait_until(lambda: served(rack, "Rack_Right")["ups.delay.start"] == "61", 10, "the value is set")
    wait_until(lambda: served(rack, "Rack_Right")["ups.beeper.status"] == "disabled", 40, "the beeper is silent")
    assert served(rack, "rack-left")["ups.beeper.status"] == "enabled"
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
def test_a_client_can_be_sure_of_the_primary(on, inventory, name):
    """The certificate is good for the name under which it is reached, and for no other."""
    authority = (inventory / SECRETS_FOLDER / "tls" / "ca.pem").read_text()
    talk = ("python3 -c %s rack %s %s %s", TALK_TLS, str(PORT))
    answer, told = on(name).check_output(*talk, "rack", authority).splitlines()
    assert answer == "OK STARTTLS"
    assert told.startswith('UPSDESC desk-3_EATON "\\#"')
    assert told.split()[-1] in ("TLSv1.2", "TLSv1.3")
    answer, told = on(name).check_output(*talk, "rack-nas", authority).splitlines()
    assert answer == "OK STARTTLS"
    assert "rack-nas" in told
    assert "UPSDESC" not in told


@pytest.mark.parametrize("name", ["rack-db", "rack-old"])
def test_a_client_with_another_authority_does_not_log_in(on, name):
    """Seen with NUT's own client of each release; with the right one it does, so the test would notice."""
    right = on(name).check_output("sh -c %s sh right", OTHER_UPSMON)
    wrong = on(name).check_output("sh -c %s sh wrong", OTHER_UPSMON)
    assert "Logged into UPS" in right, right
    assert "Logged into UPS" not in wrong, wrong


@pytest.mark.parametrize("name", ["rack", *LINUX])
def test_nobody_logs_in_in_clear_text(on, name):
    """Without these two upsmon goes on in clear text as soon as something is wrong with the certificates."""
    told = on(name).file("/etc/nut/upsmon.conf").content_string
    assert grammar.find_directive(told, "FORCESSL") == "1"
    assert grammar.find_directive(told, "CERTVERIFY") == "1"


def test_keys_are_for_nut_alone(on):
    """upsd runs as nut, and nobody else must be able to pass for it."""
    rack = on("rack")
    folder = grammar.find_directive(rack.file("/etc/nut/upsd.conf").content_string, "CERTPATH")
    listed = rack.check_output("find %s -printf '%%y %%m %%u %%g %%p\\n'", folder).splitlines()
    assert any(line.endswith("/key4.db") for line in listed)
    for line in listed:
        kind, mode, user, group, _path = line.split(maxsplit=4)
        assert (user, group) == ("root", "nut"), line
        assert not int(mode, 8) & ~(0o750 if kind == "d" else 0o640), line


def pem_key(path: Path) -> str:
    """Return the public half of a private key on the controller."""
    done = subprocess.run(["openssl", "pkey", "-in", path, "-pubout"], check=True, text=True, capture_output=True)
    return done.stdout


def test_the_key_of_the_authority_is_on_no_host(on, inventory):
    """Who has it can pass for any host. Also no database holds a key beside the authority's certificate."""
    public = subprocess.run(
        ["openssl", "x509", "-in", inventory / SECRETS_FOLDER / "tls" / "ca.pem", "-noout", "-pubkey"],
        check=True, text=True, capture_output=True,
    ).stdout  # fmt: skip
    keys = [
        path
        for path in (inventory / SECRETS_FOLDER / "tls").rglob("*")
        if path.is_file() and "PRIVATE KEY" in path.read_text()
    ]
    (key,) = [path for path in keys if pem_key(path) == public]
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
            # C or T is a trusted authority, u one whose private key is there too
            assert not [flags for flags in trust if set("CT") & set(flags) and "u" in flags], f"{name}: {path}"


# What comes of events


def test_timers(on, lab):
    """One runs out and one does not, because the mains return; what was asked for at once is done at once."""
    rack = on("rack")

    def events() -> list[str]:
        return rack.run("cat /run/nut/ups-events 2>/dev/null").stdout.split()

    rack.check_output("rm -f /run/nut/ups-events")
    lab.control_ups("rack", "mains", "off", "--port", "1")
    try:
        wait_until(lambda: "at-once" in events(), 20, "NUT noticed")
        assert "short" not in events()
        wait_until(lambda: "short" in events(), 10, "the short timer ran out")
    finally:
        lab.control_ups("rack", "mains", "on", "--port", "1")
    wait_until(lambda: "short-was-over" in events(), 20, "NUT noticed that the mains are back")
    wait_until(lambda: rack.run("pgrep -x upssched").rc == 1, 30, "no timer is left")
    assert events() == ["at-once", "short", "short-was-over"]
    said = rack.check_output("journalctl -u nut-monitor -n 50 -o cat")
    assert 'UPS rack-left@localhost:13493: "on battery", says #1 \\ NUT' in said
    assert all(read_status(rack, ups, PORT)[:1] == ["OL"] for ups in WIRED)


# A second play


def test_a_second_play_restarts_nothing(on, play, secrets):
    """Seen by the processes themselves; and the most talkative play gives nothing away."""
    before = {name: nut_processes(on(name)) for name in HOSTS}
    assert all(before.values())
    done = play("-vvv", "--diff")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == len(HOSTS)
    assert all(before[name].items() <= nut_processes(on(name)).items() for name in HOSTS)
    shown(done, secrets)


def test_a_description_costs_its_own_driver_alone(on, play, site, secrets):
    """Also a play that changes much shows no secret."""
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
    shown(done, secrets)
    done = play("--limit", "rack", "--diff")
    assert done.returncode == 0, done.stdout


def test_a_password_that_changes_is_not_shown(on, play, secrets):
    """In check mode, with all that a diff has to say about users, MONITOR lines and keys."""
    wanted = {"nut_client_password": "Another.Password-1", "nut_server_password": "Another.Password-2"}
    done = play("--check", "--diff", "-vvv", *extra_vars(**wanted))
    assert "upsd.users" in done.stdout
    shown(done, {*secrets, *wanted.values()} - {""})


def shown(done, secrets) -> None:
    """See that a play said nothing that it should keep to itself."""
    said = done.stdout + done.stderr
    assert "PRIVATE KEY" not in said
    assert not [secret for secret in secrets if secret in said]


# Beside the inventory


def test_the_inventory_holds_hosts_and_nothing_else(inventory):
    """What is kept beside it must not be taken for a part of it: Ansible would look for hosts of the passwords' names."""
    asked = ["ansible-inventory", "--inventory", str(inventory), "--list"]
    done = subprocess.run(asked, check=True, text=True, capture_output=True, cwd=CHECKOUT)
    groups = json.loads(done.stdout)
    assert {host for group in groups.values() for host in group.get("hosts", ())} == set(HOSTS)


def test_no_secret_can_get_into_git(inventory, secrets):
    """Of what git would take, nothing holds one; but for those that the inventory itself gives away."""
    asked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, check=True, text=True, capture_output=True, cwd=CHECKOUT).stdout.split("\0")
    given = (inventory / "group_vars" / "pve.yml").read_text()
    made = [secret for secret in secrets if secret not in given]
    assert len(made) > len(USERS)
    for name in filter(None, listed):
        path = CHECKOUT / name
        if path.is_file():
            text = path.read_text(errors="replace")
            assert not any(secret in text for secret in made), name
