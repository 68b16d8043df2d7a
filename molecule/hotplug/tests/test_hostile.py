# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPSes whose firmware says what it should not. NUT's own files and programs judge."""

from __future__ import annotations

from hotplug.primary import CONF, Primary

SECTION = ']\n[evil]\n\tdriver = dummy-ups\n\tport = "evil.dev"\n#'
SHELL = "$(touch /tmp/pwned)`touch /tmp/pwned`;touch /tmp/pwned|touch /tmp/pwned&\n&& touch /tmp/pwned"
SCANNER = '"\n[nutdev9]\n\tdriver = "dummy-ups"\n\tport = "auto"\n\tvendorid = "051d"\n\tproductid = "0002"\n'

# Ids that NUT's usbhid-ups knows, and what such a UPS says: manufacturer, product, serial number.
EVIL = {
    "a section": ("0463:ffff", SECTION, SECTION, SECTION),
    "shell": ("0463:0001", SHELL, SHELL, SHELL),
    "nut-scanner's own format": ("047c:ffff", SCANNER, SCANNER, SCANNER),
    "quotes and backslashes": ("050d:0980", '"""', "\\\\\\", 'A1"\\#1234567'),
    "regular expressions": ("0764:0601", "(((", "[[[", "****((("),
    "255 bytes that are no ASCII": ("06da:ffff", "ü" * 126, "漢" * 126, "\U0001f50c" * 63),
    "no text": ("09ae:3016", "\x01\x02\x1b[2J", "\r\r\r", "\udc80\udcff"),
}


def test_malicious_upses(both):
    """All at once, beside one that works: it is left alone, ups.conf is what it should be, nothing was run."""

    def case(one: Primary) -> None:
        before = one.processes()
        for ids, manufacturer, product, serial in EVIL.values():
            words = ("--id", ids, "--vendor-string", manufacturer, "--product-string", product, "--serial", serial)
            one.ups("plug", "apc", *words)
        one.run()
        one.untouched(before)
        names = {"ups", *(f"ups{number}" for number in range(2, len(EVIL) + 2))}
        assert set(one.sections()) <= names, one.text(CONF)
        assert {keys["driver"] for keys in one.sections().values()} == {"usbhid-ups"}
        assert one.text(CONF).isascii()
        assert one.sh("ls /tmp").find("pwned") < 0
        # each is served, or nut-hotplug says why it is not
        told = {ups["ids"]: ups for ups in one.status()["upses"]}
        for what, (ids, *_strings) in EVIL.items():
            if told[ids]["name"]:
                one.await_service(told[ids]["name"], ups_productid=ids[5:])
            else:
                assert told[ids]["not_served"], what
        assert sum(bool(ups["name"]) for ups in told.values()) >= 5, told
        # what they say reaches no terminal as it is
        assert "\x1b" not in one.sh("nut-hotplug status; nut-hotplug plan") + one.told()
        one.untouched(before)

    both(case)


def test_a_malicious_twin(both):
    """It has the ids of the one that works, which keeps its name and its driver."""

    def case(one: Primary) -> None:
        before, section = one.processes(), one.sections()["ups"]
        one.ups("plug", one.model, "--port", "2", "--serial", SECTION)
        one.run()
        one.swap(one.model, "--serial", "5B1234T5678.*", port=2)
        one.run()
        one.untouched(before)
        assert set(one.sections()) <= {"ups", "ups2"}
        assert (
            one.sections()["ups"].items() >= {key: section[key] for key in ("driver", "vendorid", "productid")}.items()
        )
        mine = one.bus()["upses"][0]
        one.await_service(ups_mfr=mine["manufacturer"], **({"ups_serial": mine["serial"]} if mine["serial"] else {}))

    both(case)
