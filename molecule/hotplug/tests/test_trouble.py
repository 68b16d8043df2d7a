# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong: drivers that die and hang, power cuts, a run that is killed, lost memory, files that others edit."""

from __future__ import annotations

import json
import shlex

from homelab.podman import run_podman
from hotplug.primary import CONF, LOCK, SERVICE, STATE, TIMER, Primary, driver
from support import read_status, wait_until

UNIT = driver("ups")


def others(processes: dict[str, str]) -> dict[str, str]:
    """Return the processes without that of the driver of ups."""
    return {unit: pid for unit, pid in processes.items() if unit != UNIT}


def test_a_driver_that_died(both):
    """systemd itself would wait for 15 s."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.sh(f"kill -9 {before[UNIT]}")
        wait_until(lambda: one.processes().get(UNIT) != before[UNIT], 5, "systemd notices")
        one.go()
        one.await_service()
        assert others(one.processes()) == others(before)

    both(case)


def test_a_driver_that_hangs(both):
    """Its UPS is there, and upsd has had no data for a minute: it is restarted, once."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.sh(f"kill -STOP {before[UNIT]}")
        wait_until(lambda: not one.serves(), 30, "its data are stale")
        one.run()
        one.untouched(before)
        one.later(70)
        one.go()
        one.await_service()
        after = one.processes()
        assert after[UNIT] != before[UNIT]
        assert others(after) == others(before)
        # a second one comes after 15 s where the machine is so slow that the first has not served by then
        assert one.restarts() in (1, 2)

    both(case)


def test_a_ups_that_hangs(both):
    """No restart helps, and there is one at most in the time. When the UPS works again, so does its driver."""

    def case(one: Primary) -> None:
        one.ups("hang", "nak")
        before = one.processes()
        if one.name == "pve8":
            wait_until(lambda: not one.serves(), 40, "its data are stale")
        # the driver of 2.8.1 takes no answer for no news, and so nothing is known to be wrong
        one.run()
        one.untouched(before)
        one.later(70)
        one.go()
        if one.name == "pve8":
            wait_until(lambda: one.processes().get(UNIT) != before[UNIT], 20, "it is restarted")
        one.ups("unhang")
        one.await_service()
        one.run()
        assert one.restarts() == (1 if one.name == "pve8" else 0)
        assert others(one.processes()) == others(before)

    both(case)


def test_on_battery(both):
    """What works is left alone. What has to wait is done when the mains are back."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.ups("mains", "off")
        wait_until(lambda: "OB" in read_status(one.host), 30, "on battery")
        one.ups("plug", "eaton", "--port", "2")
        for _run in range(2):
            one.run()
        one.untouched(before)
        assert "OB" in read_status(one.host)
        assert [words.split()[0] for words in one.status()["power"]] == ["ups"]
        if "ups2" not in one.sections():
            assert one.status()["deferred"]
            assert one.told().count("deferred") == 1
        one.ups("mains", "on")
        one.await_service()
        one.go()
        one.await_service("ups2")
        assert one.status()["deferred"] == []
        one.untouched(before)

    both(case)


def test_a_dummy_stands_in(both):
    """Dashboards keep the name, upsmon shuts nothing down, and the UPS gets its name back."""

    def case(one: Primary) -> None:
        one.policy(absent="dummy")
        before = one.processes()
        one.ups("unplug", "--port", "1")
        one.run()
        wait_until(lambda: not one.serves(), 20, "its data are stale")
        one.run()
        assert one.sections()["ups"]["driver"] == "usbhid-ups", "not at once: it may come back"
        one.later(40)
        one.run()
        wait_until(lambda: one.sections()["ups"]["driver"] == "dummy-ups", 20, "the dummy is in ups.conf")
        wait_until(lambda: read_status(one.host) != [], 20, "the dummy is served")
        assert {"OB", "LB", "FSD"}.isdisjoint(read_status(one.host))
        assert one.sh("upsc -l localhost 2>/dev/null").split() == ["ups"]
        # upsmon asks every five seconds, here and on the secondaries
        wait_until(lambda: one.clients() == {*one.secondaries}, 20, "the secondaries are logged in")
        assert others(one.processes()) == others(before)
        one.run()
        one.ups("replug", "--port", "1")
        one.go()
        one.await_service(driver_name="usbhid-ups")
        assert one.sections()["ups"]["driver"] == "usbhid-ups"
        assert others(one.processes()) == others(before)

    both(case)


def test_nut_scanner_fails(both):
    """What NUT's tables know needs no nut-scanner; what nobody knows is said to be unknown, and harms nobody."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.sh("cp -P /usr/bin/nut-scanner /root/; ln -sf /bin/false /usr/bin/nut-scanner")
        try:
            one.ups("plug", "eaton", "--port", "2")
            one.ups("plug", "megatec", "--port", "3", "--id", "4242:0001")
            one.go()
            one.await_service("ups2")
            one.untouched(before)
            assert set(one.sections()) == {"ups", "ups2"}
        finally:
            one.sh("mv /root/nut-scanner /usr/bin/nut-scanner")

    both(case)


def test_a_driver_that_refuses(both):
    """A rule names a driver that can't work with this UPS: the other UPS does not notice, and the tries become rare."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.policy(rules=[{"vendor": "0463", "name": "rack", "driver": "nutdrv_qx", "options": {"novendor": True}}])
        one.ups("plug", "eaton", "--port", "2")
        for _run in range(4):
            one.run()
        assert one.sections()["rack"]["driver"] == "nutdrv_qx"
        assert "novendor" in one.sections()["rack"]
        one.untouched(before)
        assert one.restarts("rack") <= 3
        assert "rack" in one.sh("nut-hotplug status")
        one.policy()
        one.later(4000)
        one.run()
        one.await_service("rack", device_mfr="EATON", driver_name="usbhid-ups")
        one.untouched(before)

    both(case)


def test_edited_by_hand(both):
    """What a person has added to ups.conf stays, when nut-hotplug writes it the next time."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.sh("printf 'ups.status: OL\\n' >/etc/nut/hand.dev")
        one.sh(f"printf '[hand]\\n\\tdriver = dummy-ups\\n\\tport = hand.dev\\n\\tdesc = \"a \\\\#1\"\\n' >>{CONF}")
        one.run()
        one.untouched(before)
        one.ups("plug", "eaton", "--port", "2")
        one.go()
        one.await_service("ups2")
        assert one.sections()["hand"] == {"driver": "dummy-ups", "port": "hand.dev", "desc": "a #1"}
        one.await_service("hand")
        one.untouched(before)

    both(case)


def test_an_automatic_section_edited_by_hand(both):
    """A line that a person has added to [ups] survives what happens to another UPS, and a replug."""

    def case(one: Primary) -> None:
        one.sh(f"sed -i '/^\\[ups\\]/a pollinterval = 3' {CONF}")
        one.run()
        one.ups("plug", "eaton", "--port", "2")
        one.go()
        one.await_service("ups2")
        one.ups("replug", "--port", "1")
        one.run()
        one.await_service("ups")
        assert one.sections()["ups"]["pollinterval"] == "3"

    both(case)


def test_killed_while_it_works(both):
    """At any moment, also in that between ups.conf and the driver. The next run finishes it."""

    def case(one: Primary) -> None:
        before = one.processes()
        for turn, after in enumerate((0.3, 0.7, 1.2)):
            model = (one.other, one.model)[turn % 2]
            one.swap(model)
            one.sh(f"timeout -s KILL {after} nut-hotplug run || [ $? = 137 ]")
            one.later(600)
            one.run()
            one.await_service(ups_vendorid={"apc": "051d", "cps": "0764"}[model])
            assert others(one.processes()) == others(before)
        one.swap(one.model)
        watch = f"was=$(stat -c %i {CONF}); for i in $(seq 500); do [ $(stat -c %i {CONF}) = $was ] || exit 0; sleep 0.01; done; exit 1"
        one.sh(f"systemctl start --no-block {SERVICE}; {watch}; systemctl kill -s KILL {SERVICE}")
        wait_until(
            lambda: "activ" not in one.host.run(f"systemctl is-active {SERVICE}").stdout.replace("inactive", ""),
            30,
            "killed",
        )
        one.run()
        one.await_service(ups_vendorid={"apc": "051d", "cps": "0764"}[one.model])
        assert others(one.processes()) == others(before)

    both(case)


def test_memory_that_is_lost_or_broken(both):
    """It costs one look, and is whole again."""

    def case(one: Primary) -> None:
        before = one.processes()
        one.ups("replug", "--port", "1")
        for broken in ("{", '{"version": 1, "identities": {"ups": 5}, "tries": []}', None):
            one.sh(f"rm -f {STATE}" if broken is None else f"printf %b {shlex.quote(broken)} >{STATE}")
            one.go()
            wait_until(lambda: one.host.run(f"grep -c '\"serial\"' {STATE}").rc == 0, 10, "it remembers again")
            one.sh(f"systemctl stop {SERVICE}")
            assert json.loads(one.text(STATE))["identities"]["ups"]
        one.await_service()
        assert one.text(CONF) == one.files[CONF]
        one.untouched(before)

    both(case)


def test_somebody_else_is_at_work(both):
    """It waits for a play that configures NUT."""

    def case(one: Primary) -> None:
        one.swap(one.other)
        one.sh(f"flock {LOCK} sleep 3 >/dev/null 2>&1 & sleep 0.3; systemctl start --no-block {SERVICE}")
        assert one.text(CONF) == one.files[CONF]
        assert one.restarts() == 0
        wait_until(lambda: one.text(CONF) != one.files[CONF], 15, "it is done after that")
        one.run()
        one.await_service()

    both(case)


def test_not_there_at_boot(both):
    """The host boots without its UPS. Plugged in later it is served, by what starts at boot alone: here, without udevd, the timer."""

    def case(one: Primary) -> None:
        one.ups("unplug", "--port", "1")
        container = one.lab.container_name(one.name)
        run_podman("kill", container)
        run_podman("start", container)
        up = ("exec", container, "systemctl", "is-system-running")
        wait_until(lambda: run_podman(*up, check=False).stdout.strip() in ("running", "degraded"), 60, "it boots")
        wait_until(lambda: one.host.run("true").rc == 0, 20, "it answers")
        assert one.text(CONF) == one.files[CONF]
        wait_until(lambda: "nut-server.service" in one.processes(), 10, "upsd runs")
        server = one.processes()["nut-server.service"]
        one.ups("replug", "--port", "1")
        one.await_service()
        assert one.processes()["nut-server.service"] == server
        one.sh(f"systemctl is-active {TIMER}; systemctl stop {TIMER}")
        wait_until(lambda: one.clients() == {*one.secondaries}, 30, "the secondaries are logged in")

    both(case)
