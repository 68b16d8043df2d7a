# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The targets of notifications: who is told of which events. A target's URL is a secret: no message here repeats it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base import check
from ..events.catalog import INFO, KINDS, SEVERITIES, Event, is_at_least

VERSION = 1
TARGETS_LIMIT = 10
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://\S{1,2000}")
_MAIL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}(@[A-Za-z0-9][A-Za-z0-9.-]{0,250})?")
_NAME = re.compile("|".join(map(re.escape, KINDS)))


class NotifyPolicyError(ValueError):
    """The targets can't be used. The message has a line for each mistake."""


@dataclass(frozen=True)
class Target:
    """Somebody who is told."""

    number: int  # its place in the list, from 1
    url: str = ""  # for Apprise
    mail: str = ""  # or an address for this host's own mail
    events: tuple[str, ...] = ()  # the events it wants; (): all that are at least so grave
    severity: str = INFO

    @property
    def label(self) -> str:
        """Return how messages name it: without anything secret."""
        how = f"mail to {self.mail}" if self.mail else self.url.partition("://")[0]
        return f"target {self.number} ({how})"

    @property
    def key(self) -> str:
        """Return what the saved state knows it by, wherever it stands in the list."""
        return hashlib.sha256(f"{self.mail} {self.url}".encode()).hexdigest()[:16]

    def wants(self, event: Event) -> bool:
        """Return whether this target is told of an event. A test reaches everybody."""
        if event.name == "test":
            return True
        if self.events:
            return event.name in self.events
        return is_at_least(event.kind.severity, self.severity)


def compose_policy(targets: object) -> dict[str, Any]:
    """Return the policy for a host, from the variable nut_server_notify. Raise NotifyPolicyError."""
    kept = [
        {key: value for key, value in target.items() if value not in (None, "", [])}
        if isinstance(target, Mapping)
        else target
        for target in (targets if isinstance(targets, (list, tuple)) else [targets])
    ]
    policy = {"version": VERSION, "targets": kept}
    check_policy(policy, "nut_server_notify")
    return policy


def check_policy(data: object, where: str = "$.targets") -> tuple[Target, ...]:
    """Return the targets of a policy. Raise NotifyPolicyError."""
    checker = check.Checker()
    given = checker.members("$", data, ("version", "targets"))
    checker.version(given, VERSION)
    targets = [
        _parse_target(checker, path, entry, number)
        for number, (path, entry) in enumerate(checker.entries(where, given.get("targets"), TARGETS_LIMIT), 1)
    ]
    keys = [target.key for target in targets]
    for number, key in enumerate(keys, 1):
        if key in keys[: number - 1] and not checker.problems:
            checker.add(where, f"target {number} is the same as target {keys.index(key) + 1}. Make them one")
    checker.raise_problems(NotifyPolicyError)
    return tuple(targets)


def load_policy(path: Path) -> tuple[Target, ...]:
    """Return the targets of a policy file. Raise NotifyPolicyError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise NotifyPolicyError(f"{path} can't be read: {error.strerror}") from None
    return check_policy(check.read_json(text, NotifyPolicyError))


def _parse_target(checker: check.Checker, path: str, entry: object, number: int) -> Target:
    given = checker.members(path, entry, ("url", "mail", "events", "severity"))
    if (given.get("url") is None) == (given.get("mail") is None):
        checker.add(path, "must have either url or mail")
    if given.get("events") is not None and given.get("severity") is not None:
        checker.add(path, "has both events and severity. Remove one")
    severity = checker.choice(*given.at("severity"), (INFO, *SEVERITIES), f"one of {', '.join(SEVERITIES)}")
    return Target(
        number,
        checker.text(*given.at("url"), _URL, "a URL of Apprise, such as ntfy://ntfy.sh/TOPIC"),
        checker.text(*given.at("mail"), _MAIL, "a user of the host, or an address"),
        checker.texts(*given.at("events"), _NAME, "an event of docs/notifications.md"),
        severity,
    )
