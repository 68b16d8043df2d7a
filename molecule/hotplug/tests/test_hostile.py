# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPSes with malicious firmware, tested against NUT's own files and programs."""

from __future__ import annotations

from hotplug.primary import CONF, HotplugPrimary

SECTION = ']\n[evil]\n\tdriver = dummy-ups\n\tport = "evil.dev"\n#'
SHELL = "$(touch /tmp/pwned)`touch /tmp/pwned`;touch /tmp/pwned|touch /tmp/pwned&\n&& touch /tmp/pwned"
SCANNER = '"\n[nutdev9]\n\tdriver = "dummy-ups"\n\tport = "auto"\n\tvendorid = "051d"\n\tproductid = "0002"\n'

# Ids that NUT's usbhid-ups supports, and the UPS's strings: manufacturer, product, serial number.
EVIL = {
    "a section": ("0463:ffff", SECTION, SECTION, SECTION),
    "shell": ("0463:0001", SHELL, SHELL, SHELL),
    "nut-scanner's own format": ("047c:ffff", SCANNER, SCANNER, SCANNER),
    "quotes and backslashes": ("050d:0980", '"""', "\\\\\\", 'A1"\\#1234567'),
    "regular expressions": ("0764:0601", "(((", "[[[", "****((("),
    "255 bytes that are no ASCII": ("06da:ffff", "ü" * 126, "漢" * 126, "\U0001f50c" * 63),
    "no text": ("09ae:3016", "\x01\x02\x1b[2J", "\r\r\r", "\udc80\udcff"),
}


def test_malicious_strings_reach_neither_ups_conf_nor_shell_nor_terminal(run_on_both):
    """All are plugged in together, beside a working UPS, which is left alone."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        for ids, manufacturer, product, serial in EVIL.values():
            words = ("--id", ids, "--vendor-string", manufacturer, "--product-string", product, "--serial", serial)
            primary.control_ups("plug", "apc", *words)
        primary.run_service()
        primary.assert_untouched(before)
        names = {"ups", *(f"ups{number}" for number in range(2, len(EVIL) + 2))}
        assert set(primary.read_sections()) <= names, primary.read_file(CONF)
        assert {keys["driver"] for keys in primary.read_sections().values()} == {"usbhid-ups"}
        assert primary.read_file(CONF).isascii()
        assert primary.run_shell("ls /tmp").find("pwned") < 0
        # upsd serves each, or nut-hotplug reports why not
        told = {ups["ids"]: ups for ups in primary.read_hotplug_status()["upses"]}
        for description, (ids, *_strings) in EVIL.items():
            if told[ids]["name"]:
                primary.wait_until_served(told[ids]["name"], ups_productid=ids[5:])
            else:
                assert told[ids]["not_served"], description
        assert sum(bool(ups["name"]) for ups in told.values()) >= 5, told
        # no control character reaches the terminal
        assert "\x1b" not in primary.run_shell("nut-hotplug status; nut-hotplug plan") + primary.read_log()
        primary.assert_untouched(before)

    run_on_both(run_case)


def test_twin_with_the_same_ids_does_not_take_over_the_name(run_on_both):
    """The working UPS keeps its name and its driver."""

    def run_case(primary: HotplugPrimary) -> None:
        before, section = primary.list_processes(), primary.read_sections()["ups"]
        primary.control_ups("plug", primary.model, "--port", "2", "--serial", SECTION)
        primary.run_service()
        primary.swap_ups(primary.model, "--serial", "5B1234T5678.*", port=2)
        primary.run_service()
        primary.assert_untouched(before)
        assert set(primary.read_sections()) <= {"ups", "ups2"}
        assert (
            primary.read_sections()["ups"].items()
            >= {key: section[key] for key in ("driver", "vendorid", "productid")}.items()
        )
        mine = primary.read_bus()["upses"][0]
        primary.wait_until_served(
            ups_mfr=mine["manufacturer"], **({"ups_serial": mine["serial"]} if mine["serial"] else {})
        )

    run_on_both(run_case)
