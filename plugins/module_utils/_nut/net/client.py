# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client of upsd, speaking NUT's network protocol (RFC 9271).

Queries need no password, and no LOGIN: a LOGIN counts as one more system powered by the UPS, and the primary would wait for
it. Requests that change something (instcmd, set_var, fsd) need authenticate() first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .connection import UpsdConnection
from .errors import MEANINGS, BadAnswer, UnknownCommand, UpsdError

LINES_LIMIT = 10000
"""Maximum lines of one answer. A large UPS has a few hundred variables."""


# Codes with which upsd refuses to report the result of an order. All other codes are the result.
_NO_TRACKING = frozenset({"ACCESS-DENIED", "FEATURE-NOT-CONFIGURED", "UNKNOWN-COMMAND", "USERNAME-REQUIRED"})


@dataclass(frozen=True)
class VariableType:
    """The type of a variable, as upsd reports it."""

    writable: bool
    enum: bool
    range: bool
    length: int | None  # maximum characters of a text; None if the variable is not a text
    # Since 2.8.0 upsd reports NUMBER for every variable without another type (server/netget.c), even for a serial number.
    number: bool


class UpsdClient(UpsdConnection):
    """A connection to upsd with a method for each request.

    Each method can raise UpsdError (or the subclass for its code) if upsd answers with an error; the connection can still be
    used afterwards. It raises Unreachable if there is no upsd or no answer in time, and BadAnswer, an Unreachable too, for an
    answer that breaks the protocol. A name that NUT's protocol can't transmit raises grammar.Unencodable.
    """

    def get_version(self) -> str:
        """Return upsd's release, such as ``2.8.1``."""
        line = self._send_request("VER")
        if line.startswith("ERR "):
            self._parse_answer(line, "VER")
        match = re.search(r"\bupsd (\S+)", line)
        if match is None:
            raise self._reject_answer("VER", (line,))
        return match[1]

    def get_net_version(self) -> str:
        """Return the protocol version, such as ``1.3``."""
        words = self._parse_answer(self._send_request("NETVER"), "NETVER")
        if len(words) != 1 or not re.fullmatch(r"[0-9.]{1,20}", words[0]):
            raise self._reject_answer("NETVER", words)
        return words[0]

    def list_ups(self) -> dict[str, str]:
        """Return the names of all UPSes and their descriptions (``desc`` of ups.conf), in upsd's order."""
        return {row[0]: row[1] for row in self._list_rows("UPS", (), 2)}

    def list_vars(self, ups: str) -> dict[str, str]:
        """Return all variables of a UPS. Raises DataStale and DriverNotConnected, besides UnknownUps."""
        return {row[0]: row[1] for row in self._list_rows("VAR", (ups,), 2)}

    def list_clients(self, ups: str) -> tuple[str, ...]:
        """Return the addresses of the clients that are logged in to a UPS: each upsmon once for each of its MONITOR lines.

        upsd answers this even while the data of the UPS is stale.
        """
        return tuple(row[0] for row in self._list_rows("CLIENT", (ups,), 1))

    def list_rw(self, ups: str) -> dict[str, str]:
        """Return the variables that can be set. Raises what list_vars raises."""
        return {row[0]: row[1] for row in self._list_rows("RW", (ups,), 2)}

    def list_cmds(self, ups: str) -> tuple[str, ...]:
        """Return the instant commands of a UPS. Raises what list_vars raises."""
        return tuple(row[0] for row in self._list_rows("CMD", (ups,), 1))

    def list_enum(self, ups: str, name: str) -> tuple[str, ...]:
        """Return the values that a variable may have; () if upsd lists none. Raises what get_var raises."""
        return tuple(row[0] for row in self._list_rows("ENUM", (ups, name), 1))

    def list_range(self, ups: str, name: str) -> tuple[tuple[int, int], ...]:
        """Return the ranges (minimum, maximum) of a variable; () if upsd lists none. Raises what get_var raises."""
        rows = self._list_rows("RANGE", (ups, name), 2)
        for row in rows:
            if not all(re.fullmatch(r"-?[0-9]{1,15}", word) for word in row):
                raise self._reject_answer("LIST RANGE", row)
        return tuple((int(least), int(most)) for least, most in rows)

    def get_var(self, ups: str, name: str) -> str:
        """Return one variable of a UPS. Raises VarNotSupported, besides what list_vars raises."""
        return self._get_value("VAR", ups, name)

    def get_type(self, ups: str, name: str) -> VariableType:
        """Return the type of a variable. Raises what get_var raises."""
        words = self._parse_answer(self._send_request("GET", "TYPE", ups, name), f"GET TYPE of {ups} {name}")
        if (
            len(words) < 3
            or words[0] != "TYPE"
            or not _is_same_name(words[1], ups)
            or not _is_same_name(words[2], name)
        ):
            raise self._reject_answer("GET TYPE", words)
        types = words[3:]
        lengths = [match[1] for match in (re.fullmatch(r"STRING:([0-9]{1,9})", word) for word in types) if match]
        return VariableType(
            writable="RW" in types,
            enum="ENUM" in types,
            range="RANGE" in types,
            length=int(lengths[0]) if lengths else None,
            number="NUMBER" in types,
        )

    def get_desc(self, ups: str, name: str) -> str:
        """Return upsd's description of a variable; ``Description unavailable`` if there is none."""
        return self._get_value("DESC", ups, name)

    def get_cmddesc(self, ups: str, command: str) -> str:
        """Return upsd's description of an instant command; ``Description unavailable`` if there is none."""
        return self._get_value("CMDDESC", ups, command)

    def ups_desc(self, ups: str) -> str:
        """Return the description of a UPS (``desc`` of ups.conf); ``Unavailable`` if there is none."""
        return self._get_value("UPSDESC", ups)

    def num_logins(self, ups: str) -> int:
        """Return how many clients are logged in to a UPS. Raises DataStale and DriverNotConnected, besides UnknownUps."""
        text = self._get_value("NUMLOGINS", ups)
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise self._reject_answer("GET NUMLOGINS", (text,))
        return int(text)

    def authenticate(self, username: str, password: str) -> None:
        """Send a username and password, for requests that need them. This is not a LOGIN.

        upsd accepts any password here; a wrong one makes the first order fail with AccessDenied. Without TLS the password
        crosses the network in plain text. No error message contains it. Raises UpsdError if called twice.
        """
        self._send_order(("USERNAME", username), "USERNAME")
        self._send_order(("PASSWORD", password), "PASSWORD", secret=True)

    def set_tracking(self) -> None:
        """Have upsd track the orders of this connection. Raises UnknownCommand or InvalidArgument from upsd before 2.8.0.

        Needs authenticate() first (server/netcmds.h), else raises AccessDenied; the user needs no rights.
        """
        self._send_order(("SET", "TRACKING", "ON"), "SET TRACKING ON")

    def get_tracking(self, tracking: str) -> str:
        """Return the state of an order: PENDING, SUCCESS, or why it failed: UNKNOWN, INVALID-ARGUMENT, FAILED.

        tracking: the id from instcmd or set_var. Any connection can use it after set_tracking, for TRACKINGDELAY (an hour).
        UNKNOWN: the driver does not know the command or variable, or upsd does not know the id.
        """
        try:
            words = self._parse_answer(self._send_request("GET", "TRACKING", tracking), "GET TRACKING")
        except UpsdError as error:
            if error.code in _NO_TRACKING:
                raise
            return error.code
        if words not in {("PENDING",), ("SUCCESS",)}:
            raise self._reject_answer("GET TRACKING", words)
        return words[0]

    def instcmd(self, ups: str, command: str, value: str | None = None) -> str | None:
        """Send an instant command to the driver. Return the id for get_tracking; None without set_tracking.

        Returning does not mean that the driver did it. Raises CmdNotSupported, AccessDenied, and what list_vars raises.
        """
        words = ("INSTCMD", ups, command) if value is None else ("INSTCMD", ups, command, value)
        return self._send_tracked(words, f"INSTCMD {ups} {command}")

    def set_var(self, ups: str, name: str, value: str) -> str | None:
        """Have the driver set a variable. Return the id for get_tracking, as instcmd does.

        Raises AccessDenied, VarNotSupported, ReadOnly, InvalidValue, TooLong, and what list_vars raises.
        """
        return self._send_tracked(("SET", "VAR", ups, name, value), f"SET VAR {ups} {name}")

    def fsd(self, ups: str) -> None:
        """Set the flag FSD: every host on this UPS shuts down, and the primary may cut its power. It can't be undone.

        Raises AccessDenied for a user without ``actions = FSD`` or ``upsmon primary``.
        """
        self._send_order(("FSD", ups), f"FSD {ups}", "FSD-SET")

    def check_primary(self, ups: str) -> None:
        """Check that the user may be a primary of this UPS, without any effect. Raises AccessDenied if not.

        A secondary's right can't be checked this way, only by login.
        """
        try:
            self._send_order(("PRIMARY", ups), f"PRIMARY {ups}", "PRIMARY-GRANTED")
        except UnknownCommand:  # older than 2.8.0
            self._send_order(("MASTER", ups), f"MASTER {ups}", "MASTER-GRANTED")

    def login(self, ups: str) -> None:
        """Count as a system powered by this UPS until the connection ends. Never use it for a query: the primary would wait."""
        self._send_order(("LOGIN", ups), f"LOGIN {ups}")

    def logout(self) -> None:
        """Send LOGOUT and close the connection."""
        words = self._parse_answer(self._send_request("LOGOUT"), "LOGOUT")
        if words[:1] != ("OK",) and words != ("Goodbye...",):
            raise self._reject_answer("LOGOUT", words)
        self.close()

    def _send_order(self, words: tuple[str, ...], about: str, granted: str = "", secret: bool = False) -> None:
        """Send a request that upsd answers with OK. secret: keep the answer out of errors, as it may repeat the request."""
        try:
            answer = self._parse_answer(self._send_request(*words), about)
        except UpsdError as error:
            if secret:
                raise type(error)(error.code if error.code in MEANINGS else "an error", self.address, about) from None
            raise
        except BadAnswer:
            if secret:
                raise self._reject_answer(about, ()) from None
            raise
        # older releases of upsd send other words after the OK
        if answer[0] != "OK" or (granted and answer[1:2] != (granted,)):
            raise self._reject_answer(about, () if secret else answer)

    def _send_tracked(self, words: tuple[str, ...], about: str) -> str | None:
        answer = self._parse_answer(self._send_request(*words), about)
        if answer[0] != "OK" or (len(answer) > 1 and (len(answer) != 3 or answer[1] != "TRACKING")):
            raise self._reject_answer(about, answer)
        return answer[2] if len(answer) > 1 else None

    def _get_value(self, kind: str, ups: str, *names: str) -> str:
        """Return the last word of the answer to a GET."""
        about = f"GET {kind} of {' '.join((ups, *names))}"
        words = self._parse_answer(self._send_request("GET", kind, ups, *names), about)
        if (
            len(words) != len(names) + 3
            or (words[0], *words[2:-1]) != (kind, *names)
            or not _is_same_name(words[1], ups)
        ):
            raise self._reject_answer(f"GET {kind}", words)
        return words[-1]

    def _list_rows(self, kind: str, names: tuple[str, ...], columns: int) -> list[tuple[str, ...]]:
        """Return the rows of a LIST, without the leading words that repeat the request."""
        about = " ".join(("LIST", kind, *names))
        words = self._parse_answer(self._send_request("LIST", kind, *names), about)
        if not self._is_list_edge("BEGIN", kind, names, words):
            raise self._reject_answer(about, words)
        rows: list[tuple[str, ...]] = []
        for _line in range(LINES_LIMIT):
            words = self._parse_answer(self._read_line(), about)
            if self._is_list_edge("END", kind, names, words):
                return rows
            repeated = words[1 : 1 + len(names)]
            complete = words[:1] == (kind,) and len(words) == 1 + len(names) + columns
            if not complete or not all(map(_is_same_name, repeated, names)):
                raise self._reject_answer(about, words)
            rows.append(words[1 + len(names) :])
        raise self._give_up(BadAnswer, f"its answer to {about} has more than {LINES_LIMIT} lines")

    @staticmethod
    def _is_list_edge(edge: str, kind: str, names: tuple[str, ...], words: tuple[str, ...]) -> bool:
        """Return whether the words begin or end a LIST. edge: "BEGIN" or "END"."""
        # upsd 2.7.4 ends a list of ranges with the name of another list
        kinds = {kind, "ENUM"} if (edge, kind) == ("END", "RANGE") else {kind}
        is_edge = words[:2] == (edge, "LIST") and len(words) == 3 + len(names)
        return is_edge and words[2] in kinds and all(map(_is_same_name, words[3:], names))


def _is_same_name(left: str, right: str) -> bool:
    """Return whether two names of UPSes are equal for upsd: it ignores case, and answers with either spelling."""
    return left.lower() == right.lower()
