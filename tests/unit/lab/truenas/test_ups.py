# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings, and the files that come out of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from truenas import ups

SLAVE = {
    **ups.DEFAULTS,
    "mode": "SLAVE",
    "remotehost": "192.0.2.10",
    "monuser": "truenas",
    "monpwd": "Abc-123_x",
    "shutdown": "LOWBATT",
}

UPSMON_CONF = """\
MONITOR ups@192.0.2.10:3493 1 truenas Abc-123_x SLAVE
NOTIFYCMD /usr/sbin/upssched
NOTIFYFLAG ONBATT SYSLOG+EXEC
NOTIFYFLAG LOWBATT SYSLOG+EXEC
NOTIFYFLAG ONLINE SYSLOG+EXEC
NOTIFYFLAG COMMBAD SYSLOG+EXEC
NOTIFYFLAG COMMOK SYSLOG+EXEC
NOTIFYFLAG REPLBATT SYSLOG+EXEC
NOTIFYFLAG NOCOMM SYSLOG+EXEC
NOTIFYFLAG FSD SYSLOG+EXEC
NOTIFYFLAG SHUTDOWN SYSLOG+EXEC
SHUTDOWNCMD "/sbin/shutdown -P now"
HOSTSYNC 15
"""

UPSSCHED_CONF = """\
CMDSCRIPT   "/usr/bin/sudo /usr/local/bin/custom-upssched-cmd"
PIPEFN      /var/run/nut/private/upssched.pipe
LOCKFN      /var/run/nut/private/upssched.lock

AT NOCOMM   * EXECUTE NOTIFY-NOCOMM
AT COMMBAD  * START-TIMER NOTIFY-COMMBAD 10
AT COMMOK   * CANCEL-TIMER NOTIFY-COMMBAD COMMOK
AT FSD      * EXECUTE NOTIFY-FSD
AT LOWBATT  * EXECUTE NOTIFY-LOWBATT
AT ONBATT   * EXECUTE NOTIFY-ONBATT
AT ONLINE   * EXECUTE NOTIFY-ONLINE
AT REPLBATT * EXECUTE NOTIFY-REPLBATT
AT SHUTDOWN * EXECUTE NOTIFY-SHUTDOWN
"""


def test_files_of_a_slave() -> None:
    assert ups.render_files(SLAVE) == {
        "nut.conf": "MODE=netclient\n",
        "upsmon.conf": UPSMON_CONF,
        "upssched.conf": UPSSCHED_CONF + "AT LOWBATT  * EXECUTE SHUTDOWN\n",
    }


def test_shutdown_timer_is_in_upssched_conf() -> None:
    files = ups.render_files({**SLAVE, "shutdown": "BATT", "shutdowntimer": 8})
    assert files["upssched.conf"] == (
        UPSSCHED_CONF + "AT ONBATT   * START-TIMER SHUTDOWN 8\nAT ONLINE   * CANCEL-TIMER SHUTDOWN\n"
    )


def test_complete_upsmon_conf() -> None:
    files = ups.render_files(
        {**SLAVE, "powerdown": True, "nocommwarntime": 60, "hostsync": 5, "shutdowncmd": "/bin/true", "monuser": "a$b"}
    )
    first, *_unused, command, flag, hostsync, nocomm = files["upsmon.conf"].splitlines()
    assert first == "MONITOR ups@192.0.2.10:3493 1 a\\$b Abc-123_x SLAVE"
    assert command == 'SHUTDOWNCMD "/bin/true"'
    assert (flag, hostsync, nocomm) == ("POWERDOWNFLAG /etc/killpower", "HOSTSYNC 5", "NOCOMMWARNTIME 60")


def test_invalid_values_are_written_unescaped_as_by_truenas() -> None:
    text = ups.render_files({**SLAVE, "monpwd": 'a=b\\"', "remotehost": "fd00::5"})["upsmon.conf"]
    assert text.startswith('MONITOR ups@fd00::5:3493 1 truenas a=b\\" SLAVE\n')


def test_files_of_a_master() -> None:
    """A TrueNAS with a UPS of its own: files as ups.conf.mako, upsd.conf.mako and upsd.users.mako make them."""
    files = ups.render_files(
        {
            **ups.DEFAULTS,
            "driver": "blazer_usb$Ablerex 625L (USB ID 0665:5161)",
            "port": "auto",
            "description": 'my "UPS"',
            "options": "vendorid = 0665",
            "monuser": "a$b",
            "rmonitor": True,
            "extrausers": "[nut]\n\tpassword = x",
            "optionsupsd": "MAXAGE 20",
        }
    )
    assert files["nut.conf"] == "MODE=netserver\n"
    assert files["ups.conf"] == (
        '[ups]\n\tdriver = blazer_usb\n\tport = auto\n\tdesc = "my \\"UPS\\""\n\tvendorid = 0665\n'
    )
    assert files["upsd.conf"] == "LISTEN 0.0.0.0 3493\nLISTEN ::0 3493\nMAXAGE 20\n"
    assert files["upsd.users"] == "[a\\$b]\n\tpassword = fixmepass\n\tupsmon master\n\n[nut]\n\tpassword = x\n"
    assert files["upsmon.conf"].startswith("MONITOR ups@localhost:3493 1 a\\$b fixmepass MASTER\n")


def test_pipe_of_upssched_moved_in_24_10() -> None:
    assert "PIPEFN      /var/run/nut/upssched.pipe\n" in ups.render_files(SLAVE, private_pipe=False)["upssched.conf"]


@pytest.mark.parametrize(
    ("event", "output", "expected"),
    [
        ("SHUTDOWN", "ups.status: OB LB\n", True),
        ("SHUTDOWN", "ups.status: FSD OB LB\n", True),
        ("SHUTDOWN", "battery.charge: 5\nups.status: OL LB\n", False),
        ("SHUTDOWN", "ups.status: OL CHRG\n", False),
        ("SHUTDOWN", None, True),
        ("SHUTDOWN", "ups.status: OB LB\nups.test.result: TestInProgress\n", False),
        ("NOTIFY-LOWBATT", "ups.status: OB LB\n", False),
        ("COMMOK", None, False),
    ],
)
def test_upssched_event_decides_on_the_shutdown(event: str, output: str | None, expected: bool) -> None:
    assert ups.must_shut_down(event, output) is expected


@pytest.mark.parametrize(
    ("values", "modern", "classic"),
    [
        ({"monpwd": ""}, "String should have at least 1 character", "Empty value not allowed"),
        ({"powerdown": "yes"}, "Input should be a valid boolean", "Not a boolean"),
        ({"hostsync": True}, "Input should be a valid integer", "Not an integer"),
        ({"identifier": None}, "Input should be a valid string", "null not allowed"),
        ({"remoteport": 0}, "Input should be greater than or equal to 1", "Should be between 1 and 65535"),
    ],
)
def test_invalid_values_are_refused_by_the_schema(values: dict[str, Any], modern: str, classic: str) -> None:
    (name,) = values
    assert ups.check_schema(values, classic=False)[1] == [(name, modern)]
    assert ups.check_schema(values, classic=True)[1] == [(name, classic)]


def test_nullable_settings_accept_null() -> None:
    values = {"nocommwarntime": None, "shutdowncmd": None, "shutdowntimer": -1}
    assert ups.check_schema(values, classic=False) == (values, [])
    assert ups.check_schema(values, classic=True) == (values, [])


def test_mode_master_requires_a_driver() -> None:
    assert ups.check_settings(ups.DEFAULTS) == [
        ("port", "This field is required"),
        ("driver", "This field is required"),
    ]


def test_identifier_with_a_newline_passes() -> None:
    assert ups.check_settings({**SLAVE, "identifier": "ups\n"}) == []


# --- odd payloads ----------------------------------------------------------------------------------------------------
# A SLAVE that works is asked to take them. What is said of each: nothing, if it is taken; else the field and the words.

RECORDED = [  # tests/unit/recordings/truenas, all three releases
    ({"mode": "SLAVE", "identifier": "ups"}, "", ""),
    ({"remotehost": ""}, "remotehost: This field is required", "remotehost: This field is required"),
    ({"mode": "slave"}, "mode: Invalid choice: slave", "mode: Input should be 'MASTER' or 'SLAVE'"),
    ({"nope": 1}, "nope: Field was not expected", "nope: Extra inputs are not permitted"),
    ({"id": 1}, "id: Field was not expected", "id: Extra inputs are not permitted"),
    ({"remoteport": "3493"}, "", "remoteport: Input should be a valid integer"),
    ({"identifier": "my ups"}, 'identifier: Use alphanumeric characters, ".", "-" and "_"', "="),
    ({"monpwd": "a b#c"}, "monpwd: Spaces or number signs are not allowed.", "="),
    ({"hostsync": -1}, "hostsync: Should be greater", "hostsync: Input should be greater than or equal to 0"),
    ({"remoteport": 70000, "shutdown": "NEVER"}, "shutdown: Invalid choice: NEVER", "remoteport: Input should be less"),
]
# The rules that were found by running the real code, or read in it: the table of ups.update.
RULES = [
    ({}, "", ""),
    ({"mode": "SECONDARY"}, "mode: Invalid choice: SECONDARY", "mode: Input should be"),
    ({"mode": ""}, "mode: Invalid choice: ", "mode: Input should be"),
    ({"mode": "MASTER"}, "port: This field is required", "="),
    ({"identifier": "ups\n"}, "", ""),
    ({"identifier": "ups\n\n"}, "identifier: Use alphanumeric", "="),
    ({"identifier": "ups\r"}, "identifier: Use alphanumeric", "="),
    ({"identifier": "UPS.1_a-b"}, "", ""),
    ({"identifier": "ups@host"}, "identifier: Use alphanumeric", "="),
    ({"identifier": "usv-k\u00fcche"}, "identifier: Use alphanumeric", "="),
    ({"identifier": ""}, "identifier: Empty value not allowed", "identifier: String should have at least 1 character"),
    ({"remotehost": "fd00::5"}, "", ""),
    ({"remotehost": "[fd00::5]"}, "", ""),
    ({"remotehost": "fe80::1%eth0"}, "", ""),
    ({"remotehost": "nas host\n"}, "", ""),
    ({"remotehost": "http://nas:80/"}, "", ""),
    ({"remotehost": " "}, "", ""),
    ({"remotehost": "h" * 51}, "", ""),  # 50 in the database of some, and not enforced
    ({"remoteport": 1}, "", ""),
    ({"remoteport": 65535}, "", ""),
    ({"remoteport": 0}, "remoteport: Should be between 1 and 65535", "remoteport: Input should be greater than"),
    ({"remoteport": 65536}, "remoteport: Should be between 1 and 65535", "remoteport: Input should be less than"),
    ({"remoteport": -1}, "remoteport: Should be between 1 and 65535", "remoteport: Input should be greater than"),
    ({"monuser": ""}, "monuser: Empty value not allowed", "monuser: String should have at least 1 character"),
    ({"monuser": "a b"}, "monuser: Spaces or number signs are not allowed.", "="),
    ({"monuser": "#a"}, "monuser: Spaces or number signs are not allowed.", "="),
    ({"monpwd": "a"}, "", ""),
    ({"monpwd": "a\\b=c"}, "", ""),  # and then upsmon can't log in
    ({"monpwd": '"quoted'}, "", ""),
    ({"monpwd": "a\tb"}, "", ""),
    ({"monpwd": "a\nb"}, "", ""),
    ({"monpwd": "$'\";|&!%^*()"}, "", ""),
    ({"monpwd": "p\u00e4ss"}, "", ""),
    ({"monpwd": "x" * 1024}, "", ""),
    (
        {"monpwd": "x" * 1025},
        "monpwd: The value may not be longer than 1024",
        "monpwd: String should have at most 1024",
    ),
    ({"monpwd": " "}, "monpwd: Empty value not allowed", "monpwd: Spaces or number signs"),
    ({"shutdown": "lowbatt"}, "shutdown: Invalid choice: lowbatt", "shutdown: Input should be 'LOWBATT' or 'BATT'"),
    ({"shutdowntimer": -30}, "", ""),
    ({"shutdowntimer": 0}, "", ""),
    ({"shutdowncmd": None}, "", ""),
    ({"shutdowncmd": ""}, "", ""),
    ({"shutdowncmd": 'say "no"'}, "", ""),
    ({"hostsync": 0}, "", ""),
    ({"nocommwarntime": None}, "", ""),
    ({"nocommwarntime": 0}, "", ""),
    ({"nocommwarntime": -5}, "", ""),
    ({"powerdown": True}, "", ""),
    ({"driver": "usbhid-ups$ups"}, "driver: Driver selected does not match local machine's driver list", "="),
    ({"complete_identifier": "ups@h:1"}, "complete_identifier: Field was not", "complete_identifier: Extra inputs"),
    ({"extrausers": "x" * 5000, "options": "x" * 5000, "optionsupsd": "x" * 5000}, "", ""),
    (
        {"description": "x" * 1025},
        "description: The value may not be longer than 1024 characters",
        "description: String should have at most 1024",
    ),
]
# Types: read in middlewared/schema (25.04), and the models' configuration (strict, nothing extra) from 25.10 on.
TYPES = [
    ({"powerdown": 1}, "powerdown: Not a boolean", "powerdown: Input should be a valid boolean"),
    ({"powerdown": "yes"}, "powerdown: Not a boolean", "powerdown: Input should be a valid boolean"),
    ({"powerdown": None}, "powerdown: null not allowed", "powerdown: Input should be a valid boolean"),
    ({"hostsync": True}, "hostsync: Not an integer", "hostsync: Input should be a valid integer"),
    ({"hostsync": 1.0}, "hostsync: Not an integer", "hostsync: Input should be a valid integer"),
    ({"hostsync": "-1"}, "hostsync: Should be greater than", "hostsync: Input should be a valid integer"),
    ({"hostsync": " 5 "}, "", "hostsync: Input should be a valid integer"),
    ({"hostsync": "five"}, "hostsync: Not an integer", "hostsync: Input should be a valid integer"),
    ({"hostsync": None}, "hostsync: null not allowed", "hostsync: Input should be a valid integer"),
    ({"shutdowntimer": []}, "shutdowntimer: Not an integer", "shutdowntimer: Input should be a valid integer"),
    ({"nocommwarntime": ""}, "nocommwarntime: Not an integer", "nocommwarntime: Input should be a valid integer"),
    ({"monpwd": 1234}, "", "monpwd: Input should be a valid string"),
    ({"monpwd": True}, "monpwd: Not a string", "monpwd: Input should be a valid string"),
    ({"monpwd": None}, "monpwd: null not allowed", "monpwd: Input should be a valid string"),
    ({"monpwd": ["a"]}, "monpwd: Not a string", "monpwd: Input should be a valid string"),
    ({"identifier": 7}, "", "identifier: Input should be a valid string"),
    ({"remotehost": None}, "remotehost: null not allowed", "remotehost: Input should be a valid string"),
    ({"mode": None}, "mode: null not allowed", "mode: Input should be 'MASTER' or 'SLAVE'"),
    ({"mode": 1}, "mode: Invalid choice: 1", "mode: Input should be 'MASTER' or 'SLAVE'"),
    ({"shutdowncmd": False}, "shutdowncmd: Not a string", "shutdowncmd: Input should be a valid string"),
    ({"": 1}, ": Field was not expected", ": Extra inputs are not permitted"),
    ("-", ": A dict was expected", ": Input should be a valid dictionary"),
    (None, ": A dict was expected", ": Input should be a valid dictionary"),
    ([], ": A dict was expected", ": Input should be a valid dictionary"),
]
# What SQLite behind it can't keep, what it can, and what Python takes for a letter: not recorded, follows from Python.
PYTHON = [
    ({"hostsync": 2**63 - 1}, "", ""),
    ({"hostsync": 2**63}, "Python int too large to convert to SQLite INTEGER", "="),
    ({"shutdowntimer": -(2**63) - 1}, "Python int too large to convert to SQLite INTEGER", "="),
    ({"monpwd": "a\0b"}, "", ""),
    (
        {"description": "\ud800"},
        "surrogates not allowed",
        "description: Input should be a valid string, unable to parse",
    ),
    ({"identifier": "\u212a"}, "", ""),  # the sign for kelvin: without regard to case it is a k
]
PAYLOADS = [*RECORDED, *RULES, *TYPES, *PYTHON]


def refusal_of(middleware: Any, payload: Any) -> str:
    """The first complaint without the prefix of its release; nothing if it was taken, and then it was also kept."""
    from truenas.errors import RpcError

    before = dict(middleware.settings)
    try:
        middleware.service.update_settings(payload)
    except RpcError as error:
        assert middleware.settings == before
        attribute, words, errno = error.data["extra"][0]
        assert errno == 22
        return f"{attribute.rpartition('.')[2] if '.' in attribute else ''}: {words}"
    except (OverflowError, UnicodeEncodeError) as error:
        assert middleware.settings == before
        return str(error)
    assert all(
        str(middleware.settings[name]) == str(value).strip() or value == middleware.settings[name]
        for name, value in payload.items()
    )
    return ""


@pytest.mark.parametrize("release", ["25.04", "25.10", "26"])
@pytest.mark.parametrize(("payload", "classic", "modern"), PAYLOADS, ids=lambda each: ascii(each)[:50])
def test_odd_payloads_get_the_answer_of_the_release(
    make_lab: Callable[..., Any], release: str, payload: Any, classic: str, modern: str
) -> None:
    middleware = make_lab(release).middleware
    middleware.service.update_settings({"mode": "SLAVE", "remotehost": "192.0.2.10", "shutdown": "LOWBATT"})
    wanted = classic if release == "25.04" or modern == "=" else modern
    found = refusal_of(middleware, payload)
    assert wanted in found
    assert bool(wanted) is bool(found)


def test_every_odd_payload_has_an_expectation() -> None:
    assert len(PAYLOADS) >= 43
    assert {name for payload, *_unused in PAYLOADS if isinstance(payload, dict) for name in payload} >= {
        *ups.DEFAULTS.keys() - {"rmonitor", "port"},
    }


# Older ones have the schema of 25.04 but for what stands here: read in schema.py of truenas/middleware.
@pytest.mark.parametrize(
    ("payload", "before_2023", "after"),
    [
        ({"hostsync": "-1"}, "hostsync: Not an integer", "hostsync: Should be greater than or equal to 0"),
        ({"hostsync": " 5 "}, "hostsync: Not an integer", ""),
        ({"hostsync": "5"}, "", ""),
        ({"monuser": "\t"}, "", "monuser: Empty value not allowed"),
        ({"monpwd": 1234}, "", ""),
        ({"shutdown": "batt", "hostsync": True}, "shutdown: Invalid choice: batt", "shutdown: Invalid choice: batt"),
    ],
    ids=str,
)
@pytest.mark.parametrize("release", ["13.0", "22.12", "24.10"])
def test_older_releases_have_other_rules(
    make_lab: Callable[..., Any], release: str, payload: dict[str, Any], before_2023: str, after: str
) -> None:
    middleware = make_lab(release).middleware
    middleware.service.update_settings({"mode": "SLAVE", "remotehost": "192.0.2.10"})
    found = refusal_of(middleware, payload)
    if release == "13.0":  # bare names
        before_2023, found = before_2023.partition(": ")[2], found.partition(": ")[2]
    assert found == (after if release == "24.10" else before_2023)


def test_core_has_additional_settings(make_lab: Callable[..., Any]) -> None:
    """CORE mails, and switches the UPS off unless told otherwise. No other release knows these members."""
    core = make_lab("13.0").middleware
    assert core.settings["powerdown"] is True
    assert (core.settings["emailnotify"], core.settings["toemail"]) == (False, [])
    assert core.settings["subject"] == "UPS report generated by %h"
    core.service.update_settings(
        {"mode": "SLAVE", "remotehost": "192.0.2.10", "emailnotify": True, "toemail": ["a@example.org"]}
    )
    assert core.service.update_settings({"hostsync": 3})["toemail"] == ["a@example.org"]
    assert refusal_of(core, {"toemail": "a@example.org"}) == ": Not a list"
    assert make_lab("13.0").middleware.settings["emailnotify"] is True
    scale = make_lab("22.12").middleware  # the machine is another release from now on
    assert scale.settings["hostsync"] == 3
    assert scale.settings.keys() == ups.DEFAULTS.keys()
    assert refusal_of(scale, {"emailnotify": True}) == "emailnotify: Field was not expected"
    assert make_lab("25.10").middleware.settings.keys() == ups.DEFAULTS.keys()


def test_all_complaints_of_a_pass_are_reported_together() -> None:
    values = {"nope": 1, "mode": "x", "hostsync": -1}
    assert ups.check_schema(values, classic=True)[1] == [
        ("nope", "Field was not expected"),
        ("mode", "Invalid choice: x"),
    ]
    values = {"hostsync": -1, "description": "x" * 1025, "remoteport": 0}
    assert ups.check_schema(values, classic=True)[1] == [
        ("remoteport", "Should be between 1 and 65535"),
        ("hostsync", "Should be greater than or equal to 0"),
        ("description", "The value may not be longer than 1024 characters"),
    ]
    assert ups.check_schema({"description": "x" * 1025}, classic=True, old=True)[1] == [
        ("description", "Value greater than 1024 not allowed")
    ]
