# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings, and the files that come out of them."""

from __future__ import annotations

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
PIPEFN      /var/run/nut/upssched.pipe
LOCKFN      /var/run/nut/upssched.lock

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
    assert ups.render(SLAVE) == {
        "nut.conf": "MODE=netclient\n",
        "upsmon.conf": UPSMON_CONF,
        "upssched.conf": UPSSCHED_CONF + "AT LOWBATT  * EXECUTE SHUTDOWN\n",
    }


def test_timer() -> None:
    files = ups.render({**SLAVE, "shutdown": "BATT", "shutdowntimer": 8})
    assert files["upssched.conf"] == (
        UPSSCHED_CONF + "AT ONBATT   * START-TIMER SHUTDOWN 8\nAT ONLINE   * CANCEL-TIMER SHUTDOWN\n"
    )


def test_all_of_upsmon_conf() -> None:
    files = ups.render(
        {**SLAVE, "powerdown": True, "nocommwarntime": 60, "hostsync": 5, "shutdowncmd": "/bin/true", "monuser": "a$b"}
    )
    first, *_unused, command, flag, hostsync, nocomm = files["upsmon.conf"].splitlines()
    assert first == "MONITOR ups@192.0.2.10:3493 1 a\\$b Abc-123_x SLAVE"
    assert command == 'SHUTDOWNCMD "/bin/true"'
    assert (flag, hostsync, nocomm) == ("POWERDOWNFLAG /etc/killpower", "HOSTSYNC 5", "NOCOMMWARNTIME 60")


def test_what_breaks_truenas_is_not_mended() -> None:
    text = ups.render({**SLAVE, "monpwd": 'a=b\\"', "remotehost": "fd00::5"})["upsmon.conf"]
    assert text.startswith('MONITOR ups@fd00::5:3493 1 truenas a=b\\" SLAVE\n')


def test_a_master_cannot_be_played() -> None:
    with pytest.raises(ValueError, match="mode MASTER"):
        ups.render(ups.DEFAULTS)


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
def test_upssched_event(event: str, output: str | None, expected: bool) -> None:
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
def test_schema(values: dict[str, Any], modern: str, classic: str) -> None:
    (name,) = values
    assert ups.check_schema(values, classic=False)[1] == [(name, modern)]
    assert ups.check_schema(values, classic=True)[1] == [(name, classic)]


def test_null_where_it_may_be() -> None:
    values = {"nocommwarntime": None, "shutdowncmd": None, "shutdowntimer": -1}
    assert ups.check_schema(values, classic=False) == (values, [])
    assert ups.check_schema(values, classic=True) == (values, [])


def test_a_master_needs_a_driver() -> None:
    assert ups.check_settings(ups.DEFAULTS) == [
        ("port", "This field is required"),
        ("driver", "This field is required"),
    ]


def test_identifier_with_a_newline_passes() -> None:
    assert ups.check_settings({**SLAVE, "identifier": "ups\n"}) == []
