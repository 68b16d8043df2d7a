# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of TrueNAS's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ERRNO = {
    "ENOENT": 2,
    "EACCES": 13,
    "EFAULT": 14,
    "EBUSY": 16,
    "EINVAL": 22,
    "ENOTSUP": 95,
    "ENOMETHOD": 201,
    "ESERVICESTARTFAILURE": 202,
    "ENOTAUTHENTICATED": 207,
}
INVALID_JSON, INVALID_REQUEST, NO_SUCH_METHOD, INVALID_PARAMS = -32700, -32600, -32601, -32602
CALL_ERROR = -32001


class RpcError(Exception):
    """An answer with an error."""

    def __init__(self, code: int, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    @property
    def reason(self) -> str:
        """The message for people: TrueNAS's reason if there is one."""
        return str(self.data["reason"]) if self.data else str(self)


def call_error(errname: str, text: str, extra: Any = None, *, bare: bool = False) -> RpcError:
    """Return the error of a failed method. `bare`: without [ERRNAME], as for exceptions that are not TrueNAS's own."""
    reason = text if bare else f"[{errname}] {text}"
    data = {"error": ERRNO[errname], "errname": errname, "reason": reason, "extra": extra}
    return RpcError(CALL_ERROR, "Method call error", data)


def invalid_params(complaints: Sequence[tuple[str, str]]) -> RpcError:
    """Return the error for refused arguments: (attribute, message) each."""
    einval = ERRNO["EINVAL"]
    reason = "".join(f"[EINVAL] {attribute}: {message}\n" for attribute, message in complaints)
    extra = [[attribute, message, einval] for attribute, message in complaints]
    return RpcError(
        INVALID_PARAMS,
        "Invalid params",
        {"error": einval, "errname": "EINVAL", "reason": reason, "extra": extra},
    )
