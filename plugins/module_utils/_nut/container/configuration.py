# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write NUT's files in the container: from its environment, and from the files that its user mounts.

/etc/nut/local/NAME is added to the NAME that we write. A NAME in /etc/nut that we did not write is the user's, and stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..base import check, files
from ..base import systemd as base_systemd
from ..base.text import printable
from ..conf import consistency, dry_run, fit, grammar, ups_conf
from ..conf.release import find_release
from ..deploy import actions
from ..deploy.secrets import is_ours
from ..hotplug.observation import describe_device
from ..hotplug.reconcile import HotplugHost
from ..net import snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..usb import policy
from .settings import ContainerSettings

HEADER = "# Written by the container (homelab.nut) at each start. Put your own lines into /etc/nut/local.\n"
LOCAL = "local"
"""The directory in /etc/nut with the user's additions."""
POLICY = "hotplug.json"
ADDED = ("ups.conf", "upsd.conf", "upsd.users", POLICY)
"""The files that it may have."""
MODE = 0o640
UPSD_SECONDS = 5.0


class ConfigurationError(Exception):
    """The files can't be written. The message has a line for each problem."""


def read_local_files(conf_dir: Path) -> dict[str, str]:
    """Return the user's additions: name -> text. Raise ConfigurationError."""
    folder = conf_dir / LOCAL
    if not folder.is_dir():
        return {}
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    strange = [name for name in names if name not in ADDED]
    if strange:
        raise ConfigurationError(
            f"{folder}: {printable(', '.join(strange))} can't be added to a file of NUT. Use {', '.join(ADDED)}"
        )
    try:
        texts = {name: (folder / name).read_text(encoding="utf-8", errors="surrogateescape") for name in names}
    except OSError as error:
        raise ConfigurationError(f"{error.filename} can't be read: {error.strerror}") from None
    return {name: text if text.endswith("\n") else f"{text}\n" for name, text in texts.items()}


def compose_files(settings: ContainerSettings, local: Mapping[str, str]) -> dict[str, str]:
    """Return NUT's files: name -> text. ups.conf is as declared: its UPSes may still have to be found."""
    declared = ups_conf.parse_ups_conf(local.get("ups.conf", ""))
    section = (
        "" if settings.ups_name in declared.sections else f"\n[{settings.ups_name}]\n\tdriver = auto\n\tport = auto\n"
    )
    listens = f"LISTEN {grammar.quote_word(settings.listen)} {settings.port}\n"
    if any(line.words[:1] == ("LISTEN",) for line in grammar.parse_lines(local.get("upsd.conf", ""))):
        listens = ""
    users = ""
    if settings.password:
        password = grammar.quote_word(settings.password)
        users = f"[{settings.user}]\n\tpassword = {password}\n\tupsmon secondary\n\n"
    return {
        "nut.conf": f"{HEADER}MODE=netserver\n",
        "ups.conf": f"{HEADER}maxretry = 3\n{local.get('ups.conf', '')}{section}",
        # upsd starts before the first UPS is found
        "upsd.conf": f"{HEADER}ALLOW_NO_DEVICE true\n{listens}{local.get('upsd.conf', '')}",
        "upsd.users": f"{HEADER}{users}{local.get('upsd.users', '')}",
    }


def compose_policy(settings: ContainerSettings, local: Mapping[str, str]) -> str:
    """Return the policy of nut-hotplug, as JSON. Raise ConfigurationError."""
    data: dict[str, object] = {"version": 1, "absent": settings.absent, "debug": settings.has_debug}
    if POLICY in local:
        try:
            more = check.read_json(local[POLICY], policy.UsbPolicyError)
            if not isinstance(more, dict):
                raise policy.UsbPolicyError("must be an object")
            data |= more
            policy.check_policy(data)
        except policy.UsbPolicyError as error:
            raise ConfigurationError(f"{LOCAL}/{POLICY}: {error}") from None
    return json.dumps(data, indent=2) + "\n"


def write_configuration(host: HotplugHost, settings: ContainerSettings, local: Mapping[str, str]) -> tuple[str, ...]:
    """Write the files, and restart what runs with other ones. Return a line for each action.

    Nothing is changed while a UPS is not plainly on mains and something runs. Raise ConfigurationError, files.Busy and
    files.WriteError, observe.ReconcileError, and systemd.UnitError.
    """
    with host.hold_lock():
        old = {name: text for name in compose_files(settings, {}) if (text := host.local.read_file(name)) is not None}
        declared = compose_files(settings, local)
        new = {name: old[name] if name in old and not is_ours(old[name]) else text for name, text in declared.items()}
        is_own_ups_conf = new["ups.conf"] == declared["ups.conf"]
        resolution = None
        if is_own_ups_conf:
            new["ups.conf"], resolution = host.complete_ups_conf(declared["ups.conf"])
        new = _check_files(host, new)
        units = host.local.manager.show_units(actions.watched_units(new))
        is_running = units[base_systemd.SERVER].runs
        change = actions.plan_deployment(old, new, units, folder=host.local.conf_dir)
        # the container has no upsmon
        after = [action for action in change.after if action.unit != base_systemd.MONITOR]
        if is_running and (change.before or change.files or after):
            _refuse_on_battery(host)
        if resolution is not None:
            host.note_intent(new["ups.conf"], resolution)
        for action in change.before if is_running else ():
            host.local.run_action(action)
        texts = {host.local.conf_dir / name: text for name, text in new.items() if text != old.get(name)}
        # without sections, it declares nothing
        wanted = declared["ups.conf"] if is_own_ups_conf else HEADER
        texts[host.local.conf_dir / "ups.conf.wanted"] = wanted
        texts[host.local.conf_dir / POLICY] = compose_policy(settings, local)
        files.replace_files(texts, MODE, host.local.owner)
        if resolution is not None:
            host.note_written(new["ups.conf"], resolution)
            if new["ups.conf"] != old.get("ups.conf"):
                for name, ups in resolution.plugged.items():
                    host.say(f"[{name}] is {describe_device(ups.device)}, driver {ups.driver} ({printable(ups.why)})")
        if not is_running:
            return ()  # the supervisor starts everything
        return tuple(str(host.local.run_action(action, wait=False)) for action in after)


def _check_files(host: HotplugHost, texts: Mapping[str, str]) -> dict[str, str]:
    """Return the files without lines that this NUT does not know. Raise ConfigurationError."""
    release = host.release or find_release(host.local.runner, host.local.finder)
    new, wrong = dict(texts), []
    if release is not None:
        fitted = fit.fit_files(texts, release)
        new, wrong = fitted.files, [*fitted.refused]
        for line in fitted.left_out:
            host.say(printable(line, 500))
    wrong += consistency.find_inconsistencies(new, release)
    if not wrong:
        local = host.local
        wrong += dry_run.check_files(new, local.runner, local.finder, local.owner, room=local.run_dir)
    if wrong:
        raise ConfigurationError("\n".join(printable(line, 500) for line in wrong))
    return new


def _refuse_on_battery(host: HotplugHost) -> None:
    """Raise ConfigurationError if a restart could shut down a machine, or if that is unknown."""
    try:
        with UpsdClient(*host.upsd_address(), timeout=UPSD_SECONDS) as client:
            power = snapshot.list_not_on_mains(snapshot.take_snapshot(client))
    except UpsdFailure as error:
        raise ConfigurationError(f"upsd is not answering, so it is unknown whether the mains are on: {error}") from None
    if power:
        raise ConfigurationError(
            f"waiting until the mains are back, because of {', '.join(power)}. Nothing was changed"
        )
