# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import settings
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.directives import DIRECTIVES, TRUTHS
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.settings import SettingsError
from hypothesis import given
from hypothesis import strategies as st

OWN = {"POLLFREQ": 5, "HOSTSYNC": 30, "NOTIFYCMD": ""}


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        ({}, {"POLLFREQ": 5, "HOSTSYNC": 30}),
        (None, {"POLLFREQ": 5, "HOSTSYNC": 30}),
        ({"OFFDURATION": -1, "POLLFREQ": 7}, {"POLLFREQ": 7, "HOSTSYNC": 30, "OFFDURATION": -1}),
        ({"POLLFREQ": None, "HOSTSYNC": ""}, {}),
        ({"FORCESSL": False, "MINSUPPLIES": 0}, {**OWN, "FORCESSL": False, "MINSUPPLIES": 0, "NOTIFYCMD": None}),
    ],
)
def test_user_settings_override_the_role(given: Any, merged: dict[str, Any]) -> None:
    merged = {name: value for name, value in merged.items() if value is not None}
    assert settings.merge_settings(given, OWN, "upsmon.conf", "nut_server") == merged


@pytest.mark.parametrize(
    ("file", "given", "message"),
    [
        ("upsmon.conf", {"OFDURATION": 3}, "OFDURATION is not a directive of upsmon.conf. Did you mean OFFDURATION?"),
        ("upsmon.conf", {"offduration": 3}, "offduration must be written OFFDURATION."),
        ("upsmon.conf", {"MAXAGE": 3}, "MAXAGE is a directive of upsd.conf, not of upsmon.conf. Put it into nut_server_upsd_conf."),
        ("upsmon.conf", {"QQQ": 1}, "QQQ is not a directive of upsmon.conf. If your NUT knows it, put it into nut_server_extra_lines."),
        ("upsmon.conf", {"MONITOR": "x"}, "MONITOR lines are set by nut_server_extra_monitors. Use that."),
        ("upsd.conf", {"LISTEN": "x"}, "LISTEN lines are set by nut_server_listen. Use that."),
        ("upssched.conf", {"AT": "x"}, "AT lines are set by nut_server_upssched_rules. Use that."),
        (
            "ups.conf", {"offdelay": 3},
            "offdelay is a key of a UPS, not a global directive. Put it into nut_server_devices, beside the name of the UPS.",
        ),
        ("upsmon.conf", {1: 2}, "1 is not a string. Put the directive in quotes."),
        ("upsmon.conf", {"OFFDURATION": "soon"}, "OFFDURATION is 'soon', must be a whole number; it may be negative."),
        ("upsmon.conf", {"POLLFREQ": True}, "POLLFREQ is 'yes', must be a whole number of seconds, without a unit."),
        ("upsmon.conf", {"POLLFREQ": [1, 2]}, "POLLFREQ has 2 values, must be a whole number of seconds, without a unit."),
        ("upsmon.conf", {"FORCESSL": "perhaps"}, "FORCESSL: 'perhaps' is neither true nor false."),
        ("upsmon.conf", {"NOTIFYFLAG": {"ONBAT": ["EXEC"]}}, "NOTIFYFLAG ONBAT: NUT has no such type of notification. Did you"),
        ("upsmon.conf", {"CERTHOST": {"host": "a"}}, "CERTHOST: certname is missing."),
        ("nut.conf", {"POWEROFF_WAIT": "soon"}, "POWEROFF_WAIT is 'soon', must be a time for sleep(1),"),
        ("upsd.conf", {"CERTFILE": "/x"}, "CERTFILE is refused: Debian's NUT is built with NSS"),
    ],
)  # fmt: skip
def test_mistake_is_reported_with_the_variable(file: str, given: dict[Any, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.merge_settings(given, {}, file, "nut_server")
    variable = settings.variable_of("nut_server", file)
    assert str(caught.value).startswith(f"{variable}: {message}")
    if message.endswith((".", "?")):
        assert str(caught.value) == f"{variable}: {message}"


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        settings.merge_settings({"OFDURATION": 1, "DEADTIME": "x"}, {}, "upsmon.conf", "nut_client")
    assert str(caught.value) == (
        "nut_client_upsmon_conf: OFDURATION is not a directive of upsmon.conf. Did you mean OFFDURATION?"
        " nut_client_upsmon_conf: DEADTIME is 'x', must be a whole number of seconds, without a unit."
    )


@pytest.mark.parametrize("name", sorted(settings.PRIMARY_ONLY))
def test_directive_of_a_primary_is_refused_for_a_secondary(name: str) -> None:
    file = "upsmon.conf" if name in DIRECTIVES["upsmon.conf"] else "nut.conf"
    with pytest.raises(SettingsError, match=f"{name} is for a host with a UPS, not for a secondary"):
        settings.merge_settings({name: "x"}, {}, file, "nut_client")


def test_directive_of_upsd_is_refused_for_a_secondary() -> None:
    with pytest.raises(SettingsError, match=r"MAXAGE is a directive of upsd.conf, .* A secondary has no such file"):
        settings.merge_settings({"MAXAGE": 1}, {}, "upsmon.conf", "nut_client")


@given(st.dictionaries(st.sampled_from(sorted(DIRECTIVES["upsmon.conf"])), st.text() | st.integers() | st.booleans()))
def test_password_is_never_shown(given: dict[str, Any]) -> None:
    secret = "hunter2 hunter2"
    with pytest.raises(SettingsError) as caught:
        settings.merge_settings({**given, "CERTIDENT": ["a", secret, secret]}, {}, "upsmon.conf", "nut_server")
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"upsmon": "x"}, "nut_server_extra_lines: upsmon is not one of nut.conf, .* Did you mean upsmon.conf\\?$"),
        ({"upsmon.conf": ["x"]}, "nut_server_extra_lines: upsmon.conf must be text"),
        (["x"], "nut_server_extra_lines must map file names to text"),
    ],
)
def test_invalid_extra_lines_are_refused(given: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings.take_extra_lines(given, "upsmon.conf", "nut_server")


def test_extra_lines_follow_a_comment() -> None:
    given = {"upsmon.conf": " A 1\nB 2\n\n"}
    assert settings.take_extra_lines(given, "upsmon.conf", "nut_client") == "\n# nut_client_extra_lines\nA 1\nB 2"
    assert settings.take_extra_lines(given, "nut.conf", "nut_client") == ""
    assert settings.take_extra_lines(None, "nut.conf", "nut_client") == ""
    with pytest.raises(SettingsError, match=r"upsd.conf is not one of nut.conf, upsmon.conf, upssched.conf"):
        settings.take_extra_lines({"upsd.conf": "x"}, "nut.conf", "nut_client")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (
            {"name": "ups", "offdelay": "soon"},
            "nut_server_devices: [ups]: offdelay is 'soon', must be a whole number",
        ),
        ({"name": "ups", "driver": "auto", "offdelay": "soon"}, "nut_server_devices: [ups]: offdelay is 'soon'"),
        ({"name": "ups", "options": {"lowbatt": "low"}}, "nut_server_devices: [ups]: lowbatt is 'low'"),
        ({"name": "a b"}, "nut_server_devices: device 'a b': a name may have only"),
    ],
)
def test_invalid_device_is_refused(device: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.write_devices([device])
    assert str(caught.value).startswith(message)


def test_keys_may_have_other_meanings_for_other_drivers() -> None:
    made = settings.write_devices([{"name": "ups", "driver": "nutdrv_qx", "options": {"offdelay": "1.5"}}])
    assert 'offdelay = "1.5"' in made


def test_every_boolean_kind_is_used() -> None:
    kinds = {directive.kind for table in DIRECTIVES.values() for directive in table.values()}
    assert set(TRUTHS) <= kinds
