# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The outer half of a drill, run as root. It reads the real settings, has systemd start the inner half in a sandbox (sandbox), and
watches the real UPSes until the drill is over."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Callable

from ..base import systemd
from ..base.systemd import Run
from ..conf import grammar
from ..net import readings
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..proxmox import startup
from ..shutdown import gate, observe
from ..shutdown.policy import ShutdownPolicy
from . import sandbox
from .job import ENDING, LOOK, Job, Output, RehearsalHost, RehearsalRefused, name_primary, read_timing, stop_on_signals

OUTAGE_MOST = 3600.0


def ask_real_upsd(policy: ShutdownPolicy) -> float | None:
    """Return the shortest runtime, in seconds, that the real UPSes report; None if none reports one.

    Raises RehearsalRefused unless every UPS is on mains.
    """
    runtimes = []
    for ups in policy.upses:
        try:
            with UpsdClient(ups.host, ups.port, observe.ASK_INTERVAL) as client:
                reading = readings.read_variables(client.list_vars(ups.name))
        except (UpsdFailure, grammar.Unencodable) as error:
            raise RehearsalRefused(f"cannot tell whether a real shutdown is imminent: {error}") from None
        if not reading.is_plainly_on_mains:
            raise RehearsalRefused(
                f"{ups.name} reports {' '.join(reading.flags) or 'no status'}, which does not count as on mains: a real shutdown may be "
                "imminent. Wait until the UPS is on mains"
            )
        runtimes += [] if reading.runtime is None else [reading.runtime]
    return min(runtimes, default=None)


def make_job(policy: ShutdownPolicy, outage: float, host: RehearsalHost) -> Job:
    """Return the job of the inner half. Raises RehearsalRefused."""
    if not 0 <= outage <= OUTAGE_MOST:
        raise RehearsalRefused(f"--outage must be from 0 to {OUTAGE_MOST:g} s")
    conf = host.read_upsmon_conf()
    if conf is None:
        raise RehearsalRefused(f"{host.conf_path} can't be read. The role nut_server writes this file")
    # the sandbox has no use for the real UPSes' addresses, and a drill has no stages
    bare = ShutdownPolicy((), policy.machines, policy.settle, policy.reserve, policy.timeout)
    return Job(bare, read_timing(conf), ask_real_upsd(policy), outage, name_primary(policy))


def hold_drill(policy: ShutdownPolicy, outage: float, host: RehearsalHost, print_step: Output, *, as_json: bool) -> int:
    """Run a drill and return the exit code of its inner half, which prints to this process's streams. Raises RehearsalRefused."""
    starter = sandbox.find_systemd_run(host)
    job = make_job(policy, outage, host)
    # later than the inner half's own limit
    command = sandbox.build_drill_command(starter, host.program, job.time_limit + 30, as_json=as_json)
    if line := startup.describe_state(startup.read_state(host.run)):
        print_step(line)
    stopped = threading.Event()
    asker = observe.UpsObserver(policy.upses, host.clock.now)
    try:
        with stop_on_signals(stopped.set):
            code = _watch_drill(command, job, print_step, stopped, asker=asker, run=host.run)
    finally:
        asker.stop_polling()
    if failure := systemd.describe_start_failure(code):
        raise RehearsalRefused(
            f"systemd can't fence the drill off on this host: {failure}{_explain_container(host)}. Nothing was done"
        )
    if code in (0, 1, 2):
        return code
    print_step(f"the drill was ended from outside ({'signal' if code < 0 else 'exit code'} {abs(code)})")
    return 1


def _explain_container(host: RehearsalHost) -> str:
    """Return what a container needs for the sandbox of a drill, as the end of a sentence; where to look if this host is none."""
    kind = systemd.read_container(host.root)
    if not kind:
        return f". See journalctl -u {sandbox.UNIT}"
    return f". This host is a container ({kind}): allow nesting where it runs (Proxmox VE: pct set ID --features nesting=1), and restart it"


def _watch_drill(
    command: Sequence[str],
    job: Job,
    print_step: Output,
    stopped: threading.Event,
    *,
    asker: Callable[[], Mapping[str, gate.GateReading]],
    run: Run,
) -> int:
    # in a new session, so that Ctrl-C reaches this half only, which then stops the other one in order
    with subprocess.Popen(  # pylint: disable=ansible-bad-function
        list(command), stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        source = process.stdin
        try:
            with contextlib.suppress(BrokenPipeError):
                if source:
                    source.write(f"{job.to_json()}\n".encode())
                    source.flush()
            while process.poll() is None and not stopped.wait(LOOK):
                on_battery = [name for name, reading in asker().items() if reading.on_battery]
                if on_battery:
                    print_step(f"real power failure: {', '.join(on_battery)} is on battery. Stopping the drill")
                    break
        finally:
            # the inner half stops at the end of its input, even if this process is killed
            with contextlib.suppress(OSError):
                if source:
                    source.close()
            try:
                process.wait(3 * ENDING)
            except subprocess.TimeoutExpired:
                run(["systemctl", "stop", "--", f"{sandbox.UNIT}.service"])
        return process.wait()
