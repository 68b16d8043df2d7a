# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The healthcheck of the container: upsd answers, and each UPS has fresh data or is known not to be plugged in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..base import paths
from ..conf import ups_conf
from ..conf.ups_conf import Section
from ..conf.upsd import local_upsd
from ..hotplug.memory import HotplugState, load_state
from ..net import snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..net.snapshot import UpsState
from ..usb.sections import is_dummy, is_usb

UPSD_SECONDS = 4.0


def find_health_problems(conf_dir: Path, state: Path = Path("/", paths.HOTPLUG_STATE)) -> list[str]:
    """Return what is wrong with the NUT of this container, a sentence each; [] if it is healthy. Raise OSError."""
    texts = [
        (conf_dir / name).read_text(encoding="utf-8", errors="surrogateescape") for name in ("upsd.conf", "ups.conf")
    ]
    try:
        with UpsdClient(*local_upsd(texts[0])[0], timeout=UPSD_SECONDS) as client:
            states = snapshot.take_snapshot(client, gather=())
    except UpsdFailure as error:
        return [str(error)]
    return judge_health(ups_conf.parse_ups_conf(texts[1]).sections.values(), states, load_state(state))


def judge_health(sections: Iterable[Section], states: Sequence[UpsState], memory: HotplugState) -> list[str]:
    """Return what is wrong. sections: of ups.conf. states: what upsd serves. memory: of the last run of nut-hotplug."""
    served = {state.name.lower(): state for state in states}
    return [
        problem
        for section in sections
        if (problem := _judge_section(section, served.get(section.name.lower()), memory))
    ]


def _judge_section(section: Section, state: UpsState | None, memory: HotplugState) -> str:
    """Return what is wrong with one UPS; "" if it is served, or known not to be plugged in."""
    if state is None:
        return f"{section.name}: upsd does not serve it"
    if state.fresh or is_dummy(section):
        return ""
    why = state.error or "its driver is starting"
    if not is_usb(section):
        return f"{section.name}: {why}"
    return f"{section.name}: {why}, although its UPS is plugged in" if section.name in memory.plugged else ""
