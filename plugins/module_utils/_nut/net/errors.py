# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors of requests to upsd."""

from __future__ import annotations

import socket

from ..base.hostnames import join_host


class UpsdFailure(Exception):
    """upsd could not be reached, or answered with an error."""


class UpsdError(UpsdFailure):
    """upsd at ``where`` answered ``ERR code`` to ``about``. The codes are listed in RFC 9271; DATA-STALE is one."""

    def __init__(self, code: str, where: str, about: str, detail: str = "") -> None:
        meaning = detail or MEANINGS.get(code, "")
        super().__init__(f"upsd at {where} answered {code} to {about}" + (f": {meaning}" if meaning else ""))
        self.code = code
        self.about = about


class DataStale(UpsdError):
    """The driver is running, but its UPS has sent nothing for longer than MAXAGE."""


class DriverNotConnected(UpsdError):
    """The driver of this UPS is not running, or upsd can't reach it."""


class UnknownUps(UpsdError):
    """upsd has no UPS of this name."""


class AccessDenied(UpsdError):
    """upsd requires a user, or the user or our address lacks the right."""


class VarNotSupported(UpsdError):
    """The UPS has no such variable."""


class CmdNotSupported(UpsdError):
    """The UPS has no such instant command."""


class InvalidArgument(UpsdError):
    """upsd does not understand the request, or the value of a command is wrong."""


class InvalidValue(UpsdError):
    """The variable can't have this value."""


class TooLong(UpsdError):
    """The value has too many characters for the variable."""


class ReadOnly(UpsdError):
    """The variable can't be set."""


class UnknownCommand(UpsdError):
    """upsd is too old for this request."""


class NoTls(UpsdError):
    """upsd offers no TLS, on purpose or because it could not read its certificate."""


class Unreachable(UpsdFailure):
    """upsd at ``host`` and ``port`` can't be reached; ``why`` says why."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(f"upsd at {join_host(host, port)} cannot be reached: {why}")
        self.host = host
        self.port = port
        self.why = why


class BadAnswer(Unreachable):
    """Something listens there, but does not speak NUT's protocol."""


class Untrusted(Unreachable):
    """upsd's certificate can't be trusted: it was not issued by our CA, or has expired."""


class UnknownIssuer(Untrusted):
    """upsd's certificate was issued by another CA."""


class WrongName(Untrusted):
    """upsd's certificate is valid, but for another name."""


MEANINGS = {
    "ACCESS-DENIED": "this host or user does not have the right",
    "ALREADY-ATTACHED": "this connection is logged in already",
    "ALREADY-LOGGED-IN": "this connection is logged in already",
    "ALREADY-SET-PASSWORD": "this connection has a password already",
    "ALREADY-SET-USERNAME": "this connection has a user already",
    "ALREADY-SSL-MODE": "this connection is encrypted already",
    "CMD-NOT-SUPPORTED": "the UPS has no such command",
    "DATA-STALE": "the driver has not heard from the UPS for too long",
    "DRIVER-NOT-CONNECTED": "the driver of this UPS is not running",
    "FEATURE-NOT-CONFIGURED": "it has no TLS, or could not read its certificate when it started (see its journal)",
    "FEATURE-NOT-SUPPORTED": "it was built without TLS",
    "INSTCMD-FAILED": "it could not hand the command to the driver",
    "INVALID-ARGUMENT": "it does not understand the request",
    "INVALID-VALUE": "the variable can't have this value",
    "PASSWORD-REQUIRED": "it requires a password",
    "READONLY": "the variable can't be set",
    "SET-FAILED": "it could not hand the value to the driver",
    "TOO-LONG": "the value is too long",
    "UNKNOWN-COMMAND": "it does not know this request",
    "UNKNOWN-UPS": "it has no UPS of this name",
    "USERNAME-REQUIRED": "it requires a user and a password",
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
    """Return why a connection failed, in a few words."""
    if isinstance(error, (TimeoutError, socket.timeout)):  # two classes before Python 3.10
        return "no complete answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused (check that upsd is running, listens on this address, and lets this host connect)"
    return error.strerror or str(error) or type(error).__name__
