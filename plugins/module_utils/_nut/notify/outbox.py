# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The messages that are still to be sent to one target, and when: pure functions of the saved state.

Order is kept: a message waits for those before it. What repeats itself becomes one message with a count. What is too old, or too
much, is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..base.clock import format_time
from ..events.catalog import Event

VERSION = 1  # of the state file
AGE_LIMIT = 2 * 86400.0
"""After so many seconds a message is given up."""

QUEUE_LIMIT = 200
"""Messages per target."""

RETRY_FIRST, RETRY_MOST = 5.0, 300.0
"""Seconds after the first failure, doubled each time, up to the second number."""

BURST = 4
"""So many events of a topic within BURST_SECONDS are sent as they come; further ones are collected into a single message."""

BURST_SECONDS = 300.0
LATE_SECONDS = 60.0
"""A message that is sent later than this says so."""


@dataclass(frozen=True)
class Message:
    """One message to one target: an event, and those that were merged into it."""

    event: Event  # the last one
    first: float  # when the first of them happened, in seconds since 1970
    count: int = 1
    not_before: float = 0.0  # seconds since 1970; it collects further events until then

    @property
    def topic(self) -> tuple[str, str]:
        """Return what it is about."""
        return self.event.kind.topic, self.event.subject


@dataclass(frozen=True)
class Queue:
    """The messages to one target."""

    messages: tuple[Message, ...] = ()
    failures: int = 0  # attempts in succession that failed
    retry_at: float = 0.0  # seconds since 1970
    dropped: int = 0  # messages since the last that was sent

    def find_due(self, now: float) -> Message | None:
        """Return the message to send now. Those that still collect events let later ones pass."""
        if now < self.retry_at <= now + RETRY_MOST:  # a clock that was set back must not stop everything
            return None
        return next((message for message in self.messages if not now < message.not_before <= now + BURST_SECONDS), None)


@dataclass(frozen=True)
class Outbox:
    """What nut-notify remembers."""

    queues: Mapping[str, Queue] = field(default_factory=dict)  # by Target.key
    recent: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # topic -> when its last events happened
    boot: str = ""  # in which it was saved
    began: float = 0.0  # when nut-notify first ran in that boot, in seconds since 1970


def note_recent(outbox: Outbox, event: Event) -> tuple[Outbox, bool]:
    """Return the outbox that remembers an event, and whether its topic has had too many of late."""
    topic = "/".join((event.kind.topic, event.subject))
    recent = {
        name: kept
        for name, times in outbox.recent.items()
        if (kept := tuple(at for at in times if abs(event.at - at) < BURST_SECONDS)[-BURST:])
    }
    is_burst = len(recent.get(topic, ())) >= BURST
    recent[topic] = (*recent.get(topic, ()), event.at)[-BURST:]
    return replace(outbox, recent=recent), is_burst


def add_event(queue: Queue, event: Event, sending: Message | None, *, is_burst: bool) -> Queue:
    """Return the queue with an event. sending: the message that is being sent, which can't take any more events."""
    messages = list(queue.messages)
    if is_burst:
        topic = (event.kind.topic, event.subject)
        for place, message in enumerate(messages):
            if message.topic == topic and message.not_before and message != sending:
                messages[place] = replace(message, event=event, count=message.count + 1)
                return replace(queue, messages=tuple(messages))
    messages.append(Message(event, event.at, not_before=event.at + BURST_SECONDS if is_burst else 0.0))
    dropped = queue.dropped
    while len(messages) > QUEUE_LIMIT:
        # what the user nut can cause must not push out anything else
        victim = next((each for each in messages if each.event.source == "upsmon" and each != sending), messages[0])
        messages.remove(victim)
        dropped += 1
    return replace(queue, messages=tuple(messages), dropped=dropped)


def drop_old(queue: Queue, now: float) -> Queue:
    """Return the queue without messages that nobody needs any more."""
    kept = tuple(message for message in queue.messages if now - message.event.at <= AGE_LIMIT)
    return replace(queue, messages=kept, dropped=queue.dropped + len(queue.messages) - len(kept))


def note_sent(queue: Queue, message: Message) -> Queue:
    """Return the queue after a message was sent."""
    return Queue(tuple(each for each in queue.messages if each != message))


def note_failed(queue: Queue, now: float) -> Queue:
    """Return the queue after an attempt failed."""
    delay = min(RETRY_FIRST * 2.0 ** min(queue.failures, 20), RETRY_MOST)
    return replace(queue, failures=queue.failures + 1, retry_at=now + delay)


def compose_text(message: Message, host: str, now: float, dropped: int = 0) -> tuple[str, str]:
    """Return the title and the body of a message. dropped: how many messages this target has missed."""
    event = message.event
    when = format_time(event.at)
    lines = [event.text] if event.text else []
    if event.kind.advice:
        lines.append(event.kind.advice)
    if message.count > 1:
        lines.append(f"This is the last of {message.count} changes since {format_time(message.first)}.")
    lines.append(f"Time: {when}, reported by {event.source} on {host}.")
    if now - event.at > LATE_SECONDS:
        lines.append(f"This message is late: it was sent at {format_time(now)}.")
    if dropped:
        lines.append(f"{dropped} messages before this one could not be delivered.")
    return f"[{host}] {event.title}", "\n".join(lines)
