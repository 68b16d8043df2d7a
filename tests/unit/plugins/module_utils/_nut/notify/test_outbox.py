# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.plugins.module_utils._nut.base import records
from ansible_collections.homelab.nut.plugins.module_utils._nut.events.catalog import Event
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify import outbox
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify.outbox import Message, Outbox, Queue
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0


def make_event(name: str = "mains-failed", at: float = NOW, source: str = "upsmon", subject: str = "ups") -> Event:
    return Event(name, subject, "", at, source)


def take_in(events: list[Event], queue: Queue | None = None, sending: Message | None = None) -> Queue:
    """Add events to a queue, as nut-notify does."""
    state, queue = Outbox(), queue or Queue()
    for event in events:
        state, is_burst = outbox.note_recent(state, event)
        queue = outbox.add_event(queue, event, sending, is_burst=is_burst)
    return queue


def flap(times: int) -> list[Event]:
    return [make_event(["mains-failed", "mains-returned"][each % 2], NOW + 5 * each) for each in range(times)]


def test_an_outage_is_two_messages_in_order() -> None:
    queue = take_in(flap(2))
    assert [message.event.name for message in queue.messages] == ["mains-failed", "mains-returned"]
    assert queue.find_due(NOW + 10) == queue.messages[0]


def test_mains_that_flap_are_a_few_messages_and_one_with_a_count() -> None:
    queue = take_in(flap(40))
    assert len(queue.messages) == outbox.BURST + 1
    last = queue.messages[-1]
    assert (last.count, last.event.name) == (36, "mains-returned")
    _title, body = outbox.compose_text(last, "pve", NOW + 500)
    assert "This is the last of 36 changes since" in body


def test_a_message_that_collects_is_sent_in_the_end() -> None:
    queue = Queue(take_in(flap(40)).messages[-1:])
    assert queue.find_due(NOW + 100) is None
    assert queue.find_due(NOW + outbox.BURST_SECONDS + 25) == queue.messages[0]


def test_a_message_that_collects_lets_others_pass() -> None:
    queue = Queue(take_in(flap(40)).messages[-1:])
    urgent = make_event("battery-low", NOW + 200)
    queue = outbox.add_event(queue, urgent, None, is_burst=False)
    due = queue.find_due(NOW + 200)
    assert due is not None
    assert due.event == urgent


def test_a_message_that_is_being_sent_takes_no_more_events() -> None:
    queue = take_in(flap(5))
    sending = queue.messages[-1]
    after = outbox.add_event(queue, make_event(at=NOW + 30), sending, is_burst=True)
    assert after.messages[: len(queue.messages)] == queue.messages
    assert len(after.messages) == len(queue.messages) + 1


def test_what_nut_can_cause_pushes_out_nothing_else() -> None:
    ours = [make_event("machine-down", NOW, "gate", "nas")]
    flood = [make_event("overload-begun", NOW + 400 * each, subject=f"ups{each}") for each in range(300)]
    queue = take_in(ours + flood)
    assert len(queue.messages) == outbox.QUEUE_LIMIT
    assert queue.messages[0].event == ours[0]
    assert queue.dropped == 301 - outbox.QUEUE_LIMIT


def test_failed_attempts_are_repeated_ever_more_slowly_and_keep_the_order() -> None:
    queue, now, delays = take_in(flap(2)), NOW, []
    for _attempt in range(9):
        queue = outbox.note_failed(queue, now)
        delays.append(queue.retry_at - now)
        assert queue.find_due(queue.retry_at - 1) is None
        now = queue.retry_at
        assert queue.find_due(now) == queue.messages[0]
    assert delays == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    sent = outbox.note_sent(queue, queue.messages[0])
    assert sent.find_due(now) == queue.messages[1]


def test_a_clock_that_is_set_back_stops_nothing() -> None:
    queue = outbox.note_failed(take_in(flap(1)), NOW)
    assert queue.find_due(NOW - 100_000) == queue.messages[0]


def test_a_message_that_nobody_needs_any_more_is_dropped_and_counted() -> None:
    queue = outbox.drop_old(take_in([make_event(), make_event("battery-low", NOW + 90_000)]), NOW + 180_000)
    assert [message.event.name for message in queue.messages] == ["battery-low"]
    _title, body = outbox.compose_text(queue.messages[0], "pve", NOW + 180_000, queue.dropped)
    assert "1 messages before this one could not be delivered" in body


def test_a_late_message_has_its_true_time_and_says_that_it_is_late() -> None:
    message = Message(make_event(), NOW)
    when, later = outbox.format_time(NOW), outbox.format_time(NOW + 7200)
    title, body = outbox.compose_text(message, "pve", NOW + 7200)
    assert title == "[pve] Mains failed: ups is on battery"
    assert f"Time: {when}, reported by upsmon on pve." in body
    assert f"This message is late: it was sent at {later}." in body
    assert "late" not in outbox.compose_text(message, "pve", NOW + 5)[1]


NAMES = st.sampled_from(["mains-failed", "mains-returned", "data-lost", "machine-down", "battery-low"])


@given(st.lists(st.tuples(NAMES, st.floats(0, 100)), max_size=60))
def test_no_event_is_lost_and_all_is_saved(steps: list[tuple[str, float]]) -> None:
    at, events = NOW, []
    for name, wait in steps:
        at += wait
        events.append(make_event(name, at))
    queue = take_in(events)
    assert sum(message.count for message in queue.messages) == len(events)
    plain = [message.event.at for message in queue.messages if not message.not_before]
    assert plain == sorted(plain)
    state = Outbox({"key": queue}, {}, "boot", NOW)
    assert records.load_record(Outbox, records.dump_record(state, outbox.VERSION), outbox.VERSION) == state
