# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether upsd accepts a login, tried as upsmon would log in.

upsmon does not repeat a refused login: do_upsd_auth() of upsmon.c is only called after a new connection. So a login is tried before it
is deployed. While it is tried, it counts as one more machine on the UPS; LOGOUT follows at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..conf import upsmon
from .client import UpsdClient
from .errors import UpsdError, UpsdFailure

ACCEPTED, REFUSED, UNKNOWN = "accepted", "refused", "unknown"


@dataclass(frozen=True)
class LoginAnswer:
    """How upsd answers a login."""

    verdict: str  # ACCEPTED, REFUSED, or UNKNOWN: upsd could not be asked as upsmon would ask it
    why: str = ""  # unless it is accepted


@contextlib.contextmanager
def open_as_upsmon(monitor: upsmon.Monitor, upsmon_conf: str, ca: str = "", timeout: float = 5) -> Iterator[UpsdClient]:
    """Yield a connection as upsmon opens it for a MONITOR line: with TLS if it verifies certificates. Raises UpsdFailure.

    ca: the only trusted certificates (PEM); "": there is no TLS.
    """
    with UpsdClient(monitor.host, monitor.port, timeout=timeout) as client:
        name = upsmon.certificate_name(upsmon_conf, monitor.host)
        if ca and name:
            client.starttls(ca, name)
        yield client


def try_login(client: UpsdClient, ups: str, user: str, password: str) -> LoginAnswer:
    """Log in to a UPS, and out again."""
    try:
        client.authenticate(user, password)
        client.login(ups)
    except UpsdError as error:
        return LoginAnswer(
            REFUSED, f"upsd at {client.address} does not accept the login {user} to {ups} ({error.code})"
        )
    except UpsdFailure as error:
        return LoginAnswer(UNKNOWN, str(error))
    with contextlib.suppress(UpsdFailure):
        client.logout()
    return LoginAnswer(ACCEPTED)


def try_monitor(monitor: upsmon.Monitor, upsmon_conf: str, ca: str = "") -> LoginAnswer:
    """Log in as upsmon would for a MONITOR line, and out again."""
    try:
        with open_as_upsmon(monitor, upsmon_conf, ca) as client:
            return try_login(client, monitor.ups, monitor.user, monitor.password)
    except UpsdFailure as error:
        return LoginAnswer(UNKNOWN, str(error))
