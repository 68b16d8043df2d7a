# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logins that would fail after a run: because upsd does not know them, or because the run would replace what others log in with.

The usual causes are a run that is limited to a secondary, and a second machine with a copy of the inventory, but without the secrets
beside it, which then makes new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base.spelling import list_words
from ..conf import nss
from ..conf.feeds import OWN_UPSD
from ..conf.files import NutFiles
from ..net import login
from ..net.client import UpsdClient
from ..net.errors import UnknownIssuer, UpsdFailure

TO_BE_MADE = "to-be-made"
"""Stands for a password that the controller does not have, and has not made yet."""

OURS = "(homelab.nut"
"""Part of the first line of each file that the roles write."""


@dataclass(frozen=True)
class SecretsPolicy:
    """What a run may replace, and what to say if it would replace more."""

    kept_in: str  # the folder on the controller
    rotate: str  # the command that makes new ones
    replaceable: tuple[str, ...] = ()  # users whose passwords may be replaced
    authority_replaceable: bool = False  # whether the certificate authority may be replaced
    authority_kept: bool = True  # whether the controller has one, or would make a new one


def is_ours(text: str) -> bool:
    """Return whether the roles wrote a file of NUT."""
    return OURS in text.partition("\n")[0]


def find_replaced_secrets(old: Mapping[str, str], new: Mapping[str, str], policy: SecretsPolicy, ca: str = "") -> str:
    """Return which secrets of a host would be replaced without being asked, and what to do; "" if there are none.

    A secondary may get another password if upsd accepts it, as after a run that did not reach the secondary. ca: the authority (PEM) that
    the new certificate is from, or that the secondary is to trust.
    """
    old, new = NutFiles.of(old), NutFiles.of(new)
    missing, differing = _list_replaced(old, new, policy.replaceable)
    authority = "" if policy.authority_replaceable or not ca else _find_authority_problem(old, policy, ca)
    clauses = [f"no password of {list_words(missing, 'or')} is kept in {policy.kept_in}"] if missing else []
    if differing:
        clauses.append(f"the password of {list_words(differing)} in {policy.kept_in} differs from the deployed one")
    if authority:
        clauses.append(authority)
    if not clauses:
        return ""
    return (
        f"{'; '.join(clauses)}: was this site deployed from another machine? Nothing was changed: with new secrets, the machines that have "
        f"the old ones could not log in any more. Copy that folder from the other machine, or make new secrets: "
        f"{policy.rotate}"
    )


def _list_replaced(old: NutFiles, new: NutFiles, replaceable: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the users whose deployed password the controller does not have, and those for which it has another."""
    missing: list[str] = []
    differing: list[str] = []
    if "upsd.users" not in new and is_ours(old.get("upsmon.conf", "")):
        deployed = {monitor.user for monitor in old.monitors}
        return [line.user for line in new.monitors if line.password == TO_BE_MADE and line.user in deployed], differing
    if not is_ours(old.get("upsd.users", "")):
        return missing, differing
    for name, user in new.users.items():
        before = old.users.get(name)
        if before is None or before.password == user.password or name in replaceable:
            continue
        (missing if user.password == TO_BE_MADE else differing).append(name)
    return missing, differing


def _find_authority_problem(old: NutFiles, policy: SecretsPolicy, ca: str) -> str:
    """Return why the authority of the deployed certificate is not the one that the controller has; "" if it is."""
    path = old.directive("upsmon.conf", "CERTPATH") or ""
    if not is_ours(old.get("upsmon.conf", "")) or not nss.NAME.fullmatch(Path(path).name):
        return ""
    if not policy.authority_kept:
        return f"no certificate authority is kept in {policy.kept_in}"
    if "upsd.conf" not in old:
        return ""  # that login is tried
    try:
        with UpsdClient(*old.local_upsd[0], timeout=5) as client:
            client.starttls(ca, "localhost")
    except UnknownIssuer:
        return f"the certificate of upsd is from another authority than that in {policy.kept_in}"
    except UpsdFailure:
        pass  # another name, or upsd is down: not a question of the authority
    return ""


def find_refused_login(old: Mapping[str, str], new: Mapping[str, str], ca: str = "") -> str:
    """Return why upsmon could not log in to the upsd of another host with new files; "" if it can.

    ca: the authority (PEM) that upsmon trusts. An upsd that can't be asked is no problem if the line is deployed already, because upsmon
    then logs in once it is back, nor if its UPS feeds nothing here.
    """
    old, new = NutFiles.of(old), NutFiles.of(new)
    for monitor in new.monitors:
        if "ups.conf" in new and monitor.host in OWN_UPSD:
            continue
        answer = login.try_monitor(monitor, new["upsmon.conf"], ca)
        is_harmless = monitor in old.monitors or not monitor.power
        if answer.verdict == login.REFUSED or (answer.verdict == login.UNKNOWN and not is_harmless):
            return answer.why
    return ""
