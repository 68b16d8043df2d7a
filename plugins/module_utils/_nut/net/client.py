# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What upsd can be asked and told: a client of NUT's network protocol (RFC 9271).

To look needs no password, and no LOGIN: that would count as one more system that hangs on the UPS, and the primary
would wait for it. What has an effect (instcmd, set_var, fsd) needs authenticate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .connection import UpsdConnection
from .errors import MEANINGS, BadAnswer, UnknownCommand, UpsdError

LINES_LIMIT = 10000
"""Lines of one answer. A large UPS has some hundred variables."""


# Codes with which upsd refuses to say what became of an order. All others tell what became of it.
_NO_TRACKING = frozenset({"ACCESS-DENIED", "FEATURE-NOT-CONFIGURED", "UNKNOWN-COMMAND", "USERNAME-REQUIRED"})


@dataclass(frozen=True)
class VariableType:
    """What upsd says of the type of a variable.

    length: the most characters of a text; None if it is none. Since 2.8.0 upsd calls a NUMBER whatever has no other
    type (server/netget.c), so a serial number, too: number says little.
    """

    writable: bool
    enum: bool
    range: bool
    length: int | None
    number: bool


class UpsdClient(UpsdConnection):
    """A connection on which upsd is asked.

    Each method raises UpsdError (or the subclass for its code) if upsd answers so, after which the connection can still
    be used; Unreachable if there is no upsd or no answer in time, and BadAnswer, which is an Unreachable too, for an
    answer that breaks the protocol. A name that cannot be written raises grammar.Unencodable.
    """

    def get_version(self) -> str:
        """Return upsd's release, such as ``2.8.1``."""
        line = self._send_request("VER")
        if line.startswith("ERR "):
            self._parse_answer(line, "VER")
        found = re.search(r"\bupsd (\S+)", line)
        if found is None:
            raise self._reject_answer("VER", (line,))
        return found.group(1)

    def get_net_version(self) -> str:
        """Return the version of the protocol, such as ``1.3``."""
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
        """Return the addresses of those who are logged in to a UPS: each running upsmon once for each of its MONITORs.

        upsd answers this even if the data of the UPS is stale.
        """
        return tuple(row[0] for row in self._list_rows("CLIENT", (ups,), 1))

    def list_rw(self, ups: str) -> dict[str, str]:
        """Return the variables that can be set. Raises what list_vars raises."""
        return {row[0]: row[1] for row in self._list_rows("RW", (ups,), 2)}

    def list_cmds(self, ups: str) -> tuple[str, ...]:
        """Return the instant commands of a UPS. Raises what list_vars raises."""
        return tuple(row[0] for row in self._list_rows("CMD", (ups,), 1))

    def list_enum(self, ups: str, name: str) -> tuple[str, ...]:
        """Return the values that a variable may have; () if there is no list of them. Raises what get_var raises."""
        return tuple(row[0] for row in self._list_rows("ENUM", (ups, name), 1))

    def list_range(self, ups: str, name: str) -> tuple[tuple[int, int], ...]:
        """Return from where to where a variable may go; () if nothing says so. Raises what get_var raises."""
        rows = self._list_rows("RANGE", (ups, name), 2)
        for row in rows:
            if not all(re.fullmatch(r"-?[0-9]{1,15}", word) for word in row):
                raise self._reject_answer("LIST RANGE", row)
        return tuple((int(least), int(most)) for least, most in rows)

    def get_var(self, ups: str, name: str) -> str:
        """Return one variable of a UPS. Raises VarNotSupported, besides what list_vars raises."""
        return self._get_value("VAR", ups, name)

    def get_type(self, ups: str, name: str) -> VariableType:
        """Return what upsd says of the type of a variable. Raises what get_var raises."""
        words = self._parse_answer(self._send_request("GET", "TYPE", ups, name), f"GET TYPE of {ups} {name}")
        if (
            len(words) < 3
            or words[0] != "TYPE"
            or not _is_same_name(words[1], ups)
            or not _is_same_name(words[2], name)
        ):
            raise self._reject_answer("GET TYPE", words)
        said = words[3:]
        lengths = [found.group(1) for found in (re.fullmatch(r"STRING:([0-9]{1,9})", word) for word in said) if found]
        return VariableType(
            writable="RW" in said,
            enum="ENUM" in said,
            range="RANGE" in said,
            length=int(lengths[0]) if lengths else None,
            number="NUMBER" in said,
        )

    def get_desc(self, ups: str, name: str) -> str:
        """Return upsd's description of a variable. It says ``Description unavailable`` where it has none."""
        return self._get_value("DESC", ups, name)

    def get_cmddesc(self, ups: str, command: str) -> str:
        """Return upsd's description of an instant command. It says ``Description unavailable`` where it has none."""
        return self._get_value("CMDDESC", ups, command)

    def ups_desc(self, ups: str) -> str:
        """Return the description of a UPS (``desc`` of ups.conf). It says ``Unavailable`` where it has none."""
        return self._get_value("UPSDESC", ups)

    def num_logins(self, ups: str) -> int:
        """Return how many are logged in to a UPS. Raises DataStale and DriverNotConnected, besides UnknownUps."""
        text = self._get_value("NUMLOGINS", ups)
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise self._reject_answer("GET NUMLOGINS", (text,))
        return int(text)

    def authenticate(self, username: str, password: str) -> None:
        """Say who we are, for what needs a user. It is no LOGIN.

        upsd says OK to all; whether it is right shows with the first order: AccessDenied. Without TLS the password is
        to be read on the way. No error names it. Raises UpsdError if it was done before.
        """
        self._send_order(("USERNAME", username), "USERNAME")
        self._send_order(("PASSWORD", password), "PASSWORD", secret=True)

    def set_tracking(self) -> None:
        """Have orders of this connection tracked. Raises UnknownCommand or InvalidArgument if upsd is older than 2.8.0.

        It needs authenticate (server/netcmds.h), but no right: else AccessDenied.
        """
        self._send_order(("SET", "TRACKING", "ON"), "SET TRACKING ON")

    def get_tracking(self, tracking: str) -> str:
        """Return what became of an order: PENDING, SUCCESS, or why not: UNKNOWN, INVALID-ARGUMENT, FAILED.

        tracking: as instcmd and set_var return it. It is good for any connection on which set_tracking was said, for
        TRACKINGDELAY (an hour). UNKNOWN: the driver does not know the command or variable, or upsd not the id.
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
        """Have the driver do a command. Returns the id by which it can be tracked; None if set_tracking was not said.

        It says only that the driver was told. Raises CmdNotSupported, AccessDenied, and what list_vars raises.
        """
        words = ("INSTCMD", ups, command) if value is None else ("INSTCMD", ups, command, value)
        return self._send_tracked(words, f"INSTCMD {ups} {command}")

    def set_var(self, ups: str, name: str, value: str) -> str | None:
        """Have the driver set a variable. Returns as instcmd does.

        Raises AccessDenied, VarNotSupported, ReadOnly, InvalidValue, TooLong, and what list_vars raises.
        """
        return self._send_tracked(("SET", "VAR", ups, name, value), f"SET VAR {ups} {name}")

    def fsd(self, ups: str) -> None:
        """Set the flag FSD: every host on this UPS goes down, and the primary may cut its power. Nothing takes it back.

        Raises AccessDenied for a user without ``actions = FSD`` or ``upsmon primary``.
        """
        self._send_order(("FSD", ups), f"FSD {ups}", "FSD-SET")

    def check_primary(self, ups: str) -> None:
        """Prove that the user may be a primary of this UPS; it has no effect. Raises AccessDenied if not.

        A secondary can't be proven so: only by login.
        """
        try:
            self._send_order(("PRIMARY", ups), f"PRIMARY {ups}", "PRIMARY-GRANTED")
        except UnknownCommand:  # older than 2.8.0
            self._send_order(("MASTER", ups), f"MASTER {ups}", "MASTER-GRANTED")

    def login(self, ups: str) -> None:
        """Count as a system that hangs on this UPS, until the connection ends. Never for a look: a primary waits for us."""
        self._send_order(("LOGIN", ups), f"LOGIN {ups}")

    def logout(self) -> None:
        """Say good-bye, and hang up."""
        words = self._parse_answer(self._send_request("LOGOUT"), "LOGOUT")
        if words[:1] != ("OK",) and words != ("Goodbye...",):
            raise self._reject_answer("LOGOUT", words)
        self.close()

    def _send_order(self, words: tuple[str, ...], about: str, granted: str = "", secret: bool = False) -> None:
        """Say something that upsd answers with OK. secret: what it answers is not shown, as it could be what we said."""
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
        # an older upsd has other words after the OK
        if answer[0] != "OK" or (granted and answer[1:2] != (granted,)):
            raise self._reject_answer(about, () if secret else answer)

    def _send_tracked(self, words: tuple[str, ...], about: str) -> str | None:
        answer = self._parse_answer(self._send_request(*words), about)
        if answer[0] != "OK" or (len(answer) > 1 and (len(answer) != 3 or answer[1] != "TRACKING")):
            raise self._reject_answer(about, answer)
        return answer[2] if len(answer) > 1 else None

    def _get_value(self, what: str, ups: str, *names: str) -> str:
        words = self._parse_answer(
            self._send_request("GET", what, ups, *names), f"GET {what} of {' '.join((ups, *names))}"
        )
        if (
            len(words) != len(names) + 3
            or (words[0], *words[2:-1]) != (what, *names)
            or not _is_same_name(words[1], ups)
        ):
            raise self._reject_answer(f"GET {what}", words)
        return words[-1]

    def _list_rows(self, what: str, of: tuple[str, ...], columns: int) -> list[tuple[str, ...]]:
        """Return the rows of a LIST, without the words that are the same in each."""
        about = " ".join(("LIST", what, *of))
        words = self._parse_answer(self._send_request("LIST", what, *of), about)
        if not self._is_list_edge("BEGIN", what, of, words):
            raise self._reject_answer(about, words)
        rows: list[tuple[str, ...]] = []
        for _line in range(LINES_LIMIT):
            words = self._parse_answer(self._read_line(), about)
            if self._is_list_edge("END", what, of, words):
                return rows
            own = words[1 : 1 + len(of)]
            if words[:1] != (what,) or len(words) != 1 + len(of) + columns or not all(map(_is_same_name, own, of)):
                raise self._reject_answer(about, words)
            rows.append(words[1 + len(of) :])
        raise self._give_up(BadAnswer, f"its answer to {about} has more than {LINES_LIMIT} lines")

    @staticmethod
    def _is_list_edge(edge: str, what: str, of: tuple[str, ...], words: tuple[str, ...]) -> bool:
        # upsd 2.7.4 ends a list of ranges with the word of another list
        kinds = {what, "ENUM"} if (edge, what) == ("END", "RANGE") else {what}
        begin = words[:2] == (edge, "LIST") and len(words) == 3 + len(of)
        return begin and words[2] in kinds and all(map(_is_same_name, words[3:], of))


def _is_same_name(left: str, right: str) -> bool:
    """upsd compares names of UPSes without regard to case, and repeats them now as asked, now as configured."""
    return left.lower() == right.lower()
