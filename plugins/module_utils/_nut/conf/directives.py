# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The directives of NUT's files: since which release each exists, and the kind of its value.

Each entry was tested with the programs of 2.8.0, 2.8.1 and 2.8.5: accepted from its release on, and refused before. Releases
between these are from NUT's release notes, and 2.8.6 from its development branch. 2.7.4 means that release or any earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Release = tuple[int, int, int]

NEWEST: Release = (2, 8, 5)
"""The newest release whose programs were tested. A newer one may have more directives than these tables."""


@dataclass(frozen=True)
class Directive:
    """A directive of a file, or a key of a section."""

    since: Release  # the first release that has it
    kind: str  # one of KINDS, or the possible words with | between them
    needed: str = ""  # if set, it is refused on older releases: why it would be unsafe to leave it out, and what to do
    never: str = ""  # if set, it is always refused: why
    without: str = ""  # the effect of leaving it out on older releases


# kind -> pattern of the value, and its description, as words that follow "must be"
VALUES: Mapping[str, tuple[str, str]] = {
    "number": (r"[0-9]{1,9}", "a whole number"),
    "positive": (r"0{0,8}[1-9][0-9]{0,8}", "a whole number of at least 1"),
    "integer": (r"-?[0-9]{1,9}", "a whole number; it may be negative"),
    "seconds": (r"[0-9]{1,9}", "a whole number of seconds, without a unit"),
    "boolean": (r"(?i:true|yes|on|1|false|no|off|0)", "true or false (or yes, no, on, off, 1, 0)"),
    "exit": (r"(?i:true|yes|on|false|no|off)|[0-9]{1,9}", "yes, no, or a whole number of seconds"),
    "hex": (r"(?i:0x)?[0-9A-Fa-f]{1,4}", "a hexadecimal number"),
    "delay": (r"[0-9]+(\.[0-9]+)?[smhd]?", "a time for sleep(1), such as 30s or 15m, without quotes"),
    "word": (r"[^\s]+", "one word"),
    "text": (r"[\s\S]*", "one text, in quotes if it has blanks"),
    "present": (r"[\s\S]*", "anything: NUT only checks whether it is set"),
    "password": (r"[\s\S]*", "one text, in quotes if it has blanks"),
    "path": (r"/[\s\S]*", "a path that begins with /"),
}
# kinds that are not a single value -> description, as words that follow "must be"
FORMS: Mapping[str, str] = {
    "flag": "without a value",
    "number?": "without a value, or a whole number",
    "words": "one or more words",
    "listen": "an address (or *) and, unless it is 3493, the port as a separate word",
    "monitor": "UPS@HOST, a whole number, a user, a password, and primary or secondary",
    "identity": "the name of a certificate and the password of its database",
    "certhost": "a host, the name of its certificate, and two digits 0 or 1: verify it, require TLS",
    "notifymsg": "a type of notification and one text, in quotes if it has blanks",
    "notifyflag": "a type of notification, and SYSLOG, WALL and EXEC joined by +, or IGNORE",
    "at": "a type of notification, a UPS (or *), a command, a name, and the seconds of START-TIMER",
}
TRUTHS = ("boolean", "true|false", "0|1")
"""The kinds that are yes or no."""

KINDS = frozenset({*VALUES, *FORMS})
"""What the kind of a Directive may be, besides a choice such as yes|no|auto."""

_ALWAYS: Release = (2, 7, 4)
_0: Release = (2, 8, 0)
_1: Release = (2, 8, 1)
_2: Release = (2, 8, 2)
_3: Release = (2, 8, 3)
_4: Release = (2, 8, 4)
_5: Release = (2, 8, 5)

_NSS = (
    "Debian's NUT is built with NSS and reads no certificate from a file, so connections would not be encrypted."
    " Use CERTPATH and CERTIDENT"
)
_NO_LIMIT = "upsd accepts it without effect, and lets every client in. Use LISTEN and a firewall"
_LOGS_ONLY = "only the logs differ"
_TWINS = (
    "UPSes that differ in nothing else would be mixed up, and the wrong one would shut this host down."
    " Use serial or bus on this host"
)
_USB_PLACE = (
    "the driver would look for this UPS's data in the wrong place. Use a release of NUT that has it, or another driver"
)


def _nut_conf() -> dict[str, Directive]:
    return {
        "MODE": Directive(_ALWAYS, "none|standalone|netserver|netclient"),
        "ALLOW_NO_DEVICE": Directive(_0, "boolean"),
        "ALLOW_NOT_ALL_LISTENERS": Directive(_2, "boolean", without="older releases never require all addresses"),
        "UPSD_OPTIONS": Directive(_ALWAYS, "text"),
        "UPSMON_OPTIONS": Directive(_ALWAYS, "text"),
        "POWEROFF_WAIT": Directive(_ALWAYS, "delay"),
        "POWEROFF_QUIET": Directive(_1, "true|false", without="NUT prints messages at the end of a shutdown"),
        "NUT_DEBUG_LEVEL": Directive(_1, "number", without=_LOGS_ONLY),
        "NUT_DEBUG_PID": Directive(_1, "present", without=_LOGS_ONLY),
        "NUT_DEBUG_PROCNAME": Directive(_5, "present", without=_LOGS_ONLY),
        "NUT_DEBUG_SYSLOG": Directive(_3, "stderr|none|default", without=_LOGS_ONLY),
        "NUT_IGNORE_CHECKPROCNAME": Directive(
            _3, "boolean", without="older releases don't check the names of processes"
        ),
        "NUT_QUIET_INIT_UPSNOTIFY": Directive(_1, "boolean", without=_LOGS_ONLY),
    }


def _ups_conf() -> dict[str, Directive]:
    return {
        "chroot": Directive(
            _ALWAYS,
            "path",
            never="upsd would look for the drivers' sockets outside of it, and find no UPS",
        ),
        "driverpath": Directive(_ALWAYS, "path"),
        "maxstartdelay": Directive(_ALWAYS, "seconds"),
        "maxretry": Directive(_ALWAYS, "positive"),
        "retrydelay": Directive(_ALWAYS, "seconds"),
        "nowait": Directive(
            _ALWAYS,
            "flag",
            never="systemd waits for the drivers, and with nowait NUT 2.8.0 reports drivers as running that are not",
        ),
        "pollinterval": Directive(_ALWAYS, "positive"),
        "synchronous": Directive(_ALWAYS, "yes|no|auto"),
        "user": Directive(_ALWAYS, "word"),
        "group": Directive(_0, "word", without="the drivers' sockets have the group of the drivers' user"),
        "debug_min": Directive(_0, "number", without=_LOGS_ONLY),
        "statepath": Directive(_3, "path", without="the drivers create their sockets where Debian's NUT has them"),
        "LIBUSB_DEBUG": Directive(_3, "number", without=_LOGS_ONLY),
    }


def _upsd_conf() -> dict[str, Directive]:
    return {
        "MAXAGE": Directive(_ALWAYS, "positive"),
        "TRACKINGDELAY": Directive(_0, "seconds", without="upsd has no tracking"),
        "ALLOW_NO_DEVICE": Directive(_0, "boolean", without="upsd does not start without a UPS"),
        "ALLOW_NOT_ALL_LISTENERS": Directive(_2, "boolean", without="older releases never require all addresses"),
        "STATEPATH": Directive(_ALWAYS, "path"),
        "DATAPATH": Directive(_ALWAYS, "path"),
        "LISTEN": Directive(_ALWAYS, "listen"),
        "MAXCONN": Directive(_ALWAYS, "positive"),
        "CERTFILE": Directive(_ALWAYS, "path", never=_NSS),
        "CERTPATH": Directive(_ALWAYS, "path"),
        "CERTIDENT": Directive(_ALWAYS, "identity"),
        "CERTREQUEST": Directive(
            _ALWAYS, "word", never="Debian's NUT is built without it, so clients would not be asked for a certificate"
        ),
        "DISABLE_WEAK_SSL": Directive(_0, "boolean", without="old versions of TLS are allowed"),
        "DEBUG_MIN": Directive(_0, "number", without=_LOGS_ONLY),
        "ACCEPT": Directive(_ALWAYS, "words", never=_NO_LIMIT),
        "REJECT": Directive(_ALWAYS, "words", never=_NO_LIMIT),
        "ACL": Directive(_ALWAYS, "words", never=_NO_LIMIT),
    }


def _upsd_users() -> dict[str, Directive]:
    return {
        "password": Directive(_ALWAYS, "password"),
        "actions": Directive(_ALWAYS, "words"),
        "instcmds": Directive(_ALWAYS, "words"),
        "upsmon": Directive(_ALWAYS, "primary|secondary|master|slave"),
        "allowfrom": Directive(_ALWAYS, "words", never=_NO_LIMIT),
    }


def _upsmon_conf() -> dict[str, Directive]:
    return {
        "MONITOR": Directive(_ALWAYS, "monitor"),
        "MINSUPPLIES": Directive(_ALWAYS, "number"),
        "SHUTDOWNCMD": Directive(_ALWAYS, "text"),
        "SHUTDOWNEXIT": Directive(
            _1,
            "exit",
            without="upsmon logs out when SHUTDOWNCMD begins, so the primary's FINALDELAY must be long enough",
        ),
        "NOTIFYCMD": Directive(_ALWAYS, "text"),
        "NOTIFYMSG": Directive(_ALWAYS, "notifymsg"),
        "NOTIFYFLAG": Directive(_ALWAYS, "notifyflag"),
        "POLLFREQ": Directive(_ALWAYS, "seconds"),
        "POLLFREQALERT": Directive(_ALWAYS, "seconds"),
        "POLLFAIL_LOG_THROTTLE_MAX": Directive(_1, "number", without=_LOGS_ONLY),
        "OFFDURATION": Directive(_1, "integer", without="a UPS that is OFF doesn't cause a shutdown"),
        "OVERDURATION": Directive(
            _3, "integer", without="a UPS that was overloaded when contact was lost doesn't cause a shutdown"
        ),
        "OBLBDURATION": Directive(_3, "integer", without="this host shuts down at once when the battery is low"),
        "ALARMCRITICAL": Directive(_3, "0|1", without="an alarm of the UPS doesn't cause a shutdown"),
        "HOSTSYNC": Directive(_ALWAYS, "seconds"),
        "DEADTIME": Directive(_ALWAYS, "seconds"),
        "FINALDELAY": Directive(_ALWAYS, "seconds"),
        "RBWARNTIME": Directive(_ALWAYS, "seconds"),
        "NOCOMMWARNTIME": Directive(_ALWAYS, "seconds"),
        "POWERDOWNFLAG": Directive(_ALWAYS, "path"),
        "RUN_AS_USER": Directive(_ALWAYS, "word"),
        "CERTFILE": Directive((2, 8, 6), "path", never=_NSS),
        "CERTPATH": Directive(_ALWAYS, "path"),
        "CERTIDENT": Directive(_ALWAYS, "identity"),
        "CERTHOST": Directive(_ALWAYS, "certhost"),
        "CERTVERIFY": Directive(_ALWAYS, "0|1"),
        "FORCESSL": Directive(_ALWAYS, "0|1"),
        "DEBUG_MIN": Directive(_0, "number", without=_LOGS_ONLY),
    }


def _upssched_conf() -> dict[str, Directive]:
    return {
        "CMDSCRIPT": Directive(_ALWAYS, "text"),
        "PIPEFN": Directive(_ALWAYS, "path"),
        "LOCKFN": Directive(_ALWAYS, "path"),
        "AT": Directive(_ALWAYS, "at"),
        "DEBUG_MIN": Directive(_5, "number", without=_LOGS_ONLY),
    }


DIRECTIVES: Mapping[str, Mapping[str, Directive]] = {
    "nut.conf": _nut_conf(),
    "ups.conf": _ups_conf(),
    "upsd.conf": _upsd_conf(),
    "upsd.users": _upsd_users(),
    "upsmon.conf": _upsmon_conf(),
    "upssched.conf": _upssched_conf(),
}
"""File -> directive, as NUT spells it. "ups.conf" has those before its first section; DEVICE has the keys of sections."""

SHARED: Mapping[str, Directive] = {
    "driver": Directive(_ALWAYS, "word"),
    "port": Directive(_ALWAYS, "text"),
    "desc": Directive(_ALWAYS, "text"),
    "sdorder": Directive(_ALWAYS, "integer"),
    "sdcommands": Directive(
        _3,
        "word",
        needed="at the end of a shutdown, the driver would use other commands, and this UPS may then not cut its power,"
        " or not restore it. Use a release of NUT that has it, or make sure that the UPS works without it",
    ),
    "nolock": Directive(_ALWAYS, "flag"),
    "ignorelb": Directive(_ALWAYS, "flag"),
    "allow_killpower": Directive(_1, "flag", without="driver.killpower does not exist"),
    "pollinterval": Directive(_ALWAYS, "positive"),
    "synchronous": Directive(_ALWAYS, "yes|no|auto"),
    "user": Directive(_0, "word", without="the driver runs as the user of all drivers"),
    "group": Directive(_0, "word", without="the driver's socket has the group of its user"),
    "maxstartdelay": Directive(_3, "seconds", without="the global one applies to all UPSes"),
    "maxretry": Directive(_3, "positive", without="the global one applies to all UPSes"),
    "retrydelay": Directive(_3, "seconds", without="the global one applies to all UPSes"),
    "debug_min": Directive(_0, "number", without=_LOGS_ONLY),
    "LIBUSB_DEBUG": Directive(_3, "number", without=_LOGS_ONLY),
    "default.*": Directive(_ALWAYS, "text"),
    "override.*": Directive(_ALWAYS, "text"),
}
"""The keys of a section for all drivers (drivers/main.c). The last two are families."""

_USB: Mapping[str, Directive] = {
    "vendor": Directive(_ALWAYS, "text"),
    "product": Directive(_ALWAYS, "text"),
    "serial": Directive(_ALWAYS, "text"),
    "vendorid": Directive(_ALWAYS, "word"),
    "productid": Directive(_ALWAYS, "word"),
    "bus": Directive(_ALWAYS, "word"),
    "device": Directive(_0, "word", needed=_TWINS),
    "busport": Directive(_1, "word", needed=_TWINS),
    "allow_duplicates": Directive(
        _1,
        "flag",
        needed="the driver would not start if another driver has the first of two identical UPSes, so the second would not be"
        " monitored. Use serial or bus on this host",
    ),
    "usb_set_altinterface": Directive(_ALWAYS, "number?"),
    "usb_config_index": Directive(_2, "hex", needed=_USB_PLACE),
    "usb_hid_rep_index": Directive(_2, "hex", needed=_USB_PLACE),
    "usb_hid_desc_index": Directive(_2, "hex", needed=_USB_PLACE),
    "usb_hid_ep_in": Directive(_2, "hex", needed=_USB_PLACE),
    "usb_hid_ep_out": Directive(_2, "hex", needed=_USB_PLACE),
}

_USBHID: Mapping[str, Directive] = {
    "lowbatt": Directive(_ALWAYS, "number"),
    "offdelay": Directive(_ALWAYS, "seconds"),
    "ondelay": Directive(_ALWAYS, "integer"),
    "pollfreq": Directive(_ALWAYS, "positive"),
    "pollonly": Directive(_ALWAYS, "flag"),
    "interrupt_pipe_no_events_tolerance": Directive(
        _3,
        "integer",
        needed="a UPS that stops responding now and then would count as on mains forever. Use pollonly on this host",
    ),
    "onlinedischarge": Directive(
        _0,
        "flag",
        needed="a UPS that reports OL DISCHRG in an outage would count as on mains, and nothing would shut down."
        " Use a release of NUT that has it",
    ),
    "onlinedischarge_onbattery": Directive(
        _2,
        "flag",
        needed="a UPS that reports OL DISCHRG in an outage would count as on mains, and nothing would shut down."
        " NUT 2.8.0 and 2.8.1 call it onlinedischarge: use that, newer releases accept it, too",
    ),
    "onlinedischarge_calibration": Directive(
        _1, "flag", without="a calibration shows as OL DISCHRG, and causes no shutdown"
    ),
    "onlinedischarge_log_throttle_sec": Directive(_2, "integer", without=_LOGS_ONLY),
    "onlinedischarge_log_throttle_hovercharge": Directive(_2, "number", without=_LOGS_ONLY),
    "lbrb_log_delay_sec": Directive(
        _3, "seconds", without="a UPS that reports a low battery only for a moment is believed at once"
    ),
    "lbrb_log_delay_without_calibrating": Directive(
        _3, "flag", without="a UPS that reports a low battery only for a moment is believed at once"
    ),
    "disable_fix_report_desc": Directive(
        _1, "flag", without="the driver corrects the UPS's report descriptor, and may show wrong voltages"
    ),
    "powercom_sdcmd_byte_order_fallback": Directive(_3, "flag", without="older releases do it that way anyway"),
    "powercom_sdcmd_discrete_delay": Directive(
        _4,
        "flag",
        needed="this UPS would not understand the delay at the end of a shutdown, and might cut its power too early or"
        " not at all. Use a release of NUT that has it",
    ),
    "subdriver": Directive(
        _1,
        "text",
        needed="the driver would choose one itself, and misread this UPS or not read it at all. Use a release of NUT that has it,"
        " or another driver",
    ),
    "winhid": Directive(_5, "flag", without="it only has an effect on Windows"),
    "explore": Directive(_ALWAYS, "flag"),
    "maxreport": Directive(_ALWAYS, "flag"),
    "interruptonly": Directive(_ALWAYS, "flag"),
    "interruptsize": Directive(_ALWAYS, "positive"),
    "waitbeforereconnect": Directive(_1, "seconds", without="the driver tries to reconnect at once"),
    "reconnect_max_tries": Directive((2, 8, 6), "number", without="the driver tries to reconnect forever"),
    "reconnect_report_freq": Directive((2, 8, 6), "number", without=_LOGS_ONLY),
}

DEVICE: Mapping[str, Directive] = {**SHARED, **_USB, **_USBHID}
"""The keys of a section of ups.conf whose driver is usbhid-ups."""

_TYPES = {
    _ALWAYS: "ONLINE ONBATT LOWBATT FSD COMMOK COMMBAD SHUTDOWN REPLBATT NOCOMM NOPARENT",
    _0: "CAL",
    _1: "OFF NOTOFF BYPASS NOTBYPASS",
    _2: "NOTCAL",
    _3: "ECO NOTECO ALARM NOTALARM OVER NOTOVER TRIM NOTTRIM BOOST NOTBOOST OTHER NOTOTHER"
    " SUSPEND_STARTING SUSPEND_FINISHED",
    _5: "SHUTDOWN_HOSTSYNC",
}
NOTIFY_TYPES: Mapping[str, Release] = {name: since for since, names in _TYPES.items() for name in names.split()}
"""Type of notification -> the first release whose upsmon sends it. NUT accepts lower case, too."""

DETAILED_TYPES = frozenset({"ALARM", "NOTALARM", "OTHER", "NOTOTHER"})
"""Types whose message may have a second %s, for details."""

AT_COMMANDS: Mapping[str, Directive] = {
    "START-TIMER": Directive(_ALWAYS, "seconds"),
    "CANCEL-TIMER": Directive(_ALWAYS, "word"),
    "EXECUTE": Directive(_ALWAYS, "word"),
    "START-TIMER-SHARED": Directive(_5, "seconds", needed="the timer would never start. Use START-TIMER on this host"),
    # the manual of 2.8.5 has it, but upssched reports "Invalid command"
    "CANCEL-TIMER-MATCHED": Directive(
        _5,
        "word",
        never="it exists only in NUT's manual, so the timer would expire although the mains are back. Use CANCEL-TIMER",
    ),
}
"""Commands of upssched's AT lines, in capital letters only."""
