# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The outer half of a drill, as root: it asks the real upsd, reads the real settings, has systemd start the inner half between walls
(sandbox), and watches the real UPS meanwhile."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Callable

from ..base.systemd import Run
from ..conf import grammar
from ..net import readings
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..shutdown import gate, observe
from ..shutdown.policy import ShutdownPolicy
from . import sandbox
from .job import ENDING, LOOK, Job, Output, RehearsalHost, RehearsalRefused, name_primary, read_timing, stop_on_signals

OUTAGE_MOST = 3600.0


def ask_real_upsd(policy: ShutdownPolicy) -> float | None:
    """Ask the real upsd: return what the emptiest UPS has left, in s, or None if none says it.

    Raises Refused, if it is no time for a drill.
    """
    left = []
    for ups in policy.upses:
        try:
            with UpsdClient(ups.host, ups.port, observe.ASK_INTERVAL) as client:
                reading = readings.read_variables(client.list_vars(ups.name))
        except (UpsdFailure, grammar.Unencodable) as error:
            raise RehearsalRefused(f"nobody can tell whether a real shutdown is near: {error}") from None
        if not reading.is_plainly_on_mains:
            raise RehearsalRefused(
                f"{ups.name} says {' '.join(reading.flags) or 'nothing'}, and must be plainly on mains (OL): a real shutdown may be "
                "near, and goes first. Wait until it is"
            )
        left += [] if reading.runtime is None else [reading.runtime]
    return min(left, default=None)


def make_job(policy: ShutdownPolicy, outage: float, host: RehearsalHost) -> Job:
    """Gather what the inner half has to know. Raises Refused."""
    if not 0 <= outage <= OUTAGE_MOST:
        raise RehearsalRefused(f"--outage must be from 0 to {OUTAGE_MOST:g} s")
    conf = host.upsmon_conf()
    if conf is None:
        raise RehearsalRefused(f"{host.conf_path} can't be read. The role nut_server writes it")
    # an address has nothing to do in there, and a stage is no part of it
    bare = ShutdownPolicy((), policy.machines, policy.settle, policy.reserve, policy.longest)
    return Job(bare, read_timing(conf), ask_real_upsd(policy), outage, name_primary(policy))


def hold_drill(policy: ShutdownPolicy, outage: float, host: RehearsalHost, say: Output, *, as_json: bool) -> int:
    """Hold a drill, and return the exit code of its inner half, which says on this process's own streams what happens. Raises Refused."""
    starter = sandbox.find_systemd_run(host)
    job = make_job(policy, outage, host)
    # a little later than it ends by itself
    words = sandbox.drill_command(starter, host.program, job.time_limit + 30, as_json=as_json)
    stopped = threading.Event()
    asker = observe.UpsObserver(policy.upses, host.clock.now)
    try:
        with stop_on_signals(stopped.set):
            return _watch_drill(words, job, say, stopped, asker=asker, run=host.run)
    finally:
        asker.stop_polling()


def _watch_drill(
    words: Sequence[str],
    job: Job,
    say: Output,
    stopped: threading.Event,
    *,
    asker: Callable[[], Mapping[str, gate.GateReading]],
    run: Run,
) -> int:
    # a session of its own: Ctrl-C is for this half, which ends the other one in order
    with subprocess.Popen(  # pylint: disable=ansible-bad-function
        list(words), stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        source = process.stdin
        try:
            with contextlib.suppress(BrokenPipeError):
                if source:
                    source.write(f"{job.to_json()}\n".encode())
                    source.flush()
            while process.poll() is None and not stopped.wait(LOOK):
                lost = [name for name, reading in asker().items() if reading.on_battery]
                if lost:
                    say(f"{', '.join(lost)} is on battery, in earnest: the drill ends")
                    break
        finally:
            # the end of its input is the end of the inner half, whatever becomes of this one
            with contextlib.suppress(OSError):
                if source:
                    source.close()
            try:
                process.wait(3 * ENDING)
            except subprocess.TimeoutExpired:
                run(["systemctl", "stop", "--", f"{sandbox.UNIT}.service"])
        code = process.wait()
    if code not in (0, 1, 2):
        say(f"the drill was ended from outside ({code})")
    return code if code in (0, 1, 2) else 1
