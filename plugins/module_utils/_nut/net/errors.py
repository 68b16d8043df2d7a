# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may go wrong when upsd is asked."""

from __future__ import annotations

import socket

from ..base.hostnames import join_host


class UpsdFailure(Exception):
    """upsd could not be asked, or would not answer."""


class UpsdError(UpsdFailure):
    """upsd at ``where`` answered ``ERR code`` to ``about``. The codes are listed in RFC 9271; DATA-STALE is one."""

    def __init__(self, code: str, where: str, about: str, detail: str = "") -> None:
        meaning = detail or MEANINGS.get(code, "")
        super().__init__(f"upsd at {where} answered {code} to {about}" + (f": {meaning}" if meaning else ""))
        self.code = code
        self.about = about


class DataStale(UpsdError):
    """The driver runs, but has heard nothing from its UPS for longer than MAXAGE."""


class DriverNotConnected(UpsdError):
    """No driver of this name runs, or upsd cannot reach it."""


class UnknownUps(UpsdError):
    """upsd has no UPS of this name."""


class AccessDenied(UpsdError):
    """upsd wants a login, or does not like our address."""


class VarNotSupported(UpsdError):
    """The UPS has no such variable."""


class CmdNotSupported(UpsdError):
    """The UPS has no such instant command."""


class InvalidArgument(UpsdError):
    """upsd does not understand the request, or the value of a command."""


class InvalidValue(UpsdError):
    """The value is not among those that the variable may have."""


class TooLong(UpsdError):
    """The value has more characters than the variable may have."""


class ReadOnly(UpsdError):
    """The variable can't be set."""


class UnknownCommand(UpsdError):
    """upsd is too old for this request."""


class NoTls(UpsdError):
    """upsd offers no TLS, on purpose or because it could not read its certificate."""


class Unreachable(UpsdFailure):
    """No upsd could be talked to at ``host`` and ``port`` for the reason ``why``."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(f"upsd at {join_host(host, port)} cannot be reached: {why}")
        self.host = host
        self.port = port
        self.why = why


class BadAnswer(Unreachable):
    """Something listens there, but what it says is not NUT's protocol."""


class Untrusted(Unreachable):
    """upsd's certificate can't be trusted: it does not come from our CA, or has expired."""


class WrongName(Untrusted):
    """upsd's certificate is good, and for another name."""


MEANINGS = {
    "ACCESS-DENIED": "it does not let this host or user ask that",
    "ALREADY-ATTACHED": "this connection is logged in already",
    "ALREADY-LOGGED-IN": "this connection is logged in already",
    "ALREADY-SET-PASSWORD": "this connection has a password already",
    "ALREADY-SET-USERNAME": "this connection has a user already",
    "ALREADY-SSL-MODE": "this connection is encrypted already",
    "CMD-NOT-SUPPORTED": "the UPS has no such command",
    "DATA-STALE": "the driver has had no news from the UPS for too long",
    "DRIVER-NOT-CONNECTED": "the driver of this UPS does not run",
    "FEATURE-NOT-CONFIGURED": "it has no TLS, or could not read its certificate when it started (see its journal)",
    "FEATURE-NOT-SUPPORTED": "it was built without TLS",
    "INSTCMD-FAILED": "it could not hand the command to the driver",
    "INVALID-ARGUMENT": "it does not understand the request",
    "INVALID-VALUE": "the variable can't have this value",
    "PASSWORD-REQUIRED": "it wants a password",
    "READONLY": "the variable can't be set",
    "SET-FAILED": "it could not hand the value to the driver",
    "TOO-LONG": "the value is too long",
    "UNKNOWN-COMMAND": "it does not know this request",
    "UNKNOWN-UPS": "it has no UPS of this name",
    "USERNAME-REQUIRED": "it wants a user and a password",
    "VAR-NOT-SUPPORTED": "the UPS has no such variable",
}
ERRORS: dict[str, type[UpsdError]] = {
    "ACCESS-DENIED": AccessDenied,
    "CMD-NOT-SUPPORTED": CmdNotSupported,
    "DATA-STALE": DataStale,
    "DRIVER-NOT-CONNECTED": DriverNotConnected,
    "FEATURE-NOT-CONFIGURED": NoTls,
    "FEATURE-NOT-SUPPORTED": NoTls,
    "INVALID-ARGUMENT": InvalidArgument,
    "INVALID-VALUE": InvalidValue,
    "PASSWORD-REQUIRED": AccessDenied,
    "READONLY": ReadOnly,
    "TOO-LONG": TooLong,
    "UNKNOWN-COMMAND": UnknownCommand,
    "UNKNOWN-UPS": UnknownUps,
    "USERNAME-REQUIRED": AccessDenied,
    "VAR-NOT-SUPPORTED": VarNotSupported,
}


def explain_error(error: OSError) -> str:
    if isinstance(error, (TimeoutError, socket.timeout)):  # two classes before Python 3.10
        return "no complete answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused (does upsd run, LISTEN on this address, and may this host connect to it?)"
    return error.strerror or str(error) or type(error).__name__
