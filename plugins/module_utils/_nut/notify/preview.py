# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which messages each target would get in a power cut, and test messages: for `make drill` and `make notify-test`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from ..base.cli import PrintText
from ..events.catalog import Event
from ..events.report import make_event, name_host
from ..shutdown.policy import ShutdownPolicy, Stage
from . import outbox
from .sender import Attempt, Post
from .targets import Target

POLL = 0.1  # seconds between two looks at an attempt


def list_events(policy: ShutdownPolicy, stages: Sequence[Stage]) -> list[Event]:
    """Return the events of a power cut in which everything goes as planned."""
    host = name_host()

    def list_pairs() -> Iterator[tuple[str, str]]:
        upses = [ups.name for ups in policy.upses]
        yield from (("mains-failed", ups) for ups in upses)
        yield from (("stage-begun", stage.name) for stage in stages)
        yield from (("battery-low", ups) for ups in upses)
        yield from (("fsd", ups) for ups in upses)
        yield "gate-begun", host
        yield from (("machine-down", machine.name) for machine in policy.machines)
        yield "gate-ended", host
        yield "host-returned", host

    return [make_event(name, subject, "", time.time(), "drill") for name, subject in list_pairs()]


def describe_preview(targets: Sequence[Target], events: Sequence[Event]) -> list[str]:
    """Return a line for each target: what it would be told."""
    lines = []
    for target in targets:
        titles = [event.title for event in events if target.wants(event)]
        lines.append(f"{target.label} would be told: {'; '.join(titles) or 'nothing'}")
    return lines


def send_tests(
    targets: Sequence[Target],
    begin: Callable[[Target, Post], Attempt],
    out: PrintText,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Target]:
    """Send a test message to each target at once, print what became of it, and return the targets that did not take it."""
    event = make_event(
        "test", name_host(), "If you can read this, messages of power cuts reach you.", time.time(), "you"
    )
    title, body = outbox.compose_text(outbox.Message(event, event.at), name_host(), event.at)
    running = [(target, begin(target, Post(title, body, event.kind.severity, event.at))) for target in targets]
    failed = []
    for target, attempt in running:
        while (outcome := attempt.poll()) is None:
            sleep(POLL)
        out(f"{target.label}: {outcome or 'sent'}")
        failed += [target] if outcome else []
    return failed
