# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logins that would fail after a run, and how the run is stopped before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import nss
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import secrets
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.deployment import DeployError
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.secrets import TO_BE_MADE, SecretsPolicy
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.client import UpsdClient
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.errors import UnknownIssuer, Untrusted
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import make_answers, serve_answers
from ansible_collections.homelab.nut.tests.unit.support.nut_host import (
    PRIMARY,
    SECONDARY,
    Place,
    primary_at,
    secondary_at,
    with_text,
)

POLICY = SecretsPolicy("/site/.homelab-nut", "make rotate limit=pve,media")
OURS = "# Written by Ansible (homelab.nut.nut_server).\n"
USERS = OURS + (
    '[monitor]\n    password = "secret1"\n    upsmon primary\n'
    '[media]\n    password = "secret2"\n    upsmon secondary\n'
    '[homeassistant]\n    password = "secret3"\n    instcmds = all\n'
)
DEPLOYED = {**PRIMARY, "upsd.users": USERS}
KNOWN = {"USERNAME media": "OK\n", "PASSWORD secret2": "OK\n", "USERNAME u": "OK\n", "PASSWORD p": "OK\n"}
REFUSED = {**KNOWN, "LOGIN ups": "ERR ACCESS-DENIED\n"}


def with_passwords(**passwords: str) -> dict[str, str]:
    text = USERS
    for old, new in passwords.items():
        assert old in text
        text = text.replace(old, new)
    return {**DEPLOYED, "upsd.users": text}


@pytest.mark.parametrize("new", [DEPLOYED, {**DEPLOYED, "upsd.users": USERS + "[new]\n    password = x\n"}, PRIMARY])
def test_same_passwords_and_new_users_are_no_problem(new: Mapping[str, str]) -> None:
    assert not secrets.find_replaced_secrets(DEPLOYED, new, POLICY)


def test_passwords_that_are_not_kept_are_not_replaced() -> None:
    new = with_passwords(secret1=TO_BE_MADE, secret2=TO_BE_MADE, secret3=TO_BE_MADE)
    assert secrets.find_replaced_secrets(DEPLOYED, new, POLICY) == (
        "no password of monitor, media or homeassistant is kept in /site/.homelab-nut: was this site deployed from another machine? "
        "Nothing was changed: with new secrets, the machines that have the old ones could not log in any more. Copy that folder from the "
        "other machine, or make new secrets: make rotate limit=pve,media"
    )


@pytest.mark.parametrize(("password", "user"), [("secret2", "media"), ("secret3", "homeassistant")])
def test_password_that_differs_is_not_replaced(password: str, user: str) -> None:
    problem = secrets.find_replaced_secrets(DEPLOYED, with_passwords(**{password: "another"}), POLICY)
    assert f"the password of {user} in /site/.homelab-nut differs from the deployed one: was" in problem
    assert "another " not in problem.replace("another machine", "")


def test_only_the_passwords_that_may_be_replaced_are_replaced() -> None:
    new = with_passwords(secret1="another", secret2="other")
    policy = replace(POLICY, replaceable=("monitor",))
    assert "the password of media in" in secrets.find_replaced_secrets(DEPLOYED, new, policy)
    assert not secrets.find_replaced_secrets(DEPLOYED, new, replace(policy, replaceable=("monitor", "media")))


def test_files_of_somebody_else_and_emptied_files_may_be_replaced() -> None:
    new = with_passwords(secret2="another")
    for old in (USERS.removeprefix(OURS), "# Emptied by Ansible (homelab.nut) with state=absent.\n", ""):
        assert not secrets.find_replaced_secrets({**DEPLOYED, "upsd.users": old}, new, POLICY)


DATABASE = nss.database_path(nss.TlsMaterial("ca"))
WITH_TLS = {
    **DEPLOYED,
    "upsd.conf": "LISTEN 127.0.0.1 PORT\n",
    "upsmon.conf": f"{OURS}{PRIMARY['upsmon.conf']}CERTPATH {DATABASE}\n",
}


@pytest.mark.parametrize(
    ("upsmon_conf", "replaceable", "is_problem"),
    [
        (WITH_TLS["upsmon.conf"], False, True),
        (WITH_TLS["upsmon.conf"], True, False),
        (WITH_TLS["upsmon.conf"].replace("tls-", "mine-"), False, False),
        (WITH_TLS["upsmon.conf"].removeprefix(OURS), False, False),
        (PRIMARY["upsmon.conf"], False, False),
    ],
)
def test_authority_that_is_not_kept_is_not_replaced(upsmon_conf: str, replaceable: bool, is_problem: bool) -> None:
    policy = replace(POLICY, authority_kept=False, authority_replaceable=replaceable)
    problem = secrets.find_replaced_secrets({**DEPLOYED, "upsmon.conf": upsmon_conf}, DEPLOYED, policy, "ca")
    assert problem.startswith("no certificate authority is kept in /site/.homelab-nut: was") is is_problem


@pytest.mark.parametrize(("error", "is_problem"), [(UnknownIssuer, True), (Untrusted, False)])
def test_another_authority_is_not_deployed(
    monkeypatch: pytest.MonkeyPatch, error: type[Untrusted], is_problem: bool
) -> None:
    """An expired certificate is replaced."""

    def starttls(client: UpsdClient, _ca: str, _name: str) -> None:
        raise error(client.host, client.port, "no")

    monkeypatch.setattr(UpsdClient, "starttls", starttls)
    with serve_answers() as fake:
        old = {**WITH_TLS, "upsd.conf": WITH_TLS["upsd.conf"].replace("PORT", str(fake.port))}
        problem = secrets.find_replaced_secrets(old, DEPLOYED, POLICY, "ca")
    assert ("from another authority than that in /site/.homelab-nut" in problem) is is_problem


def test_login_that_upsd_does_not_know_is_not_deployed(place: Place) -> None:
    with serve_answers({**make_answers(ups="OL"), **REFUSED}) as fake:
        deployment = place.make_deployment(secondary_at(fake.port))
        with pytest.raises(DeployError) as caught:
            deployment.require_logins(deployment.plan_change(), "Run: make ups limit=pve,media")
    assert str(caught.value) == (
        f"upsd at 127.0.0.1:{fake.port} does not accept the login media to ups (ACCESS-DENIED). Nothing was changed on this host. "
        "Run: make ups limit=pve,media"
    )


def test_login_that_upsd_knows_is_deployed(place: Place) -> None:
    with serve_answers({**make_answers(ups="OL"), **KNOWN}) as fake:
        deployment = place.make_deployment(secondary_at(fake.port))
        deployment.require_logins(deployment.plan_change(), "")
        assert fake.asked[-1] == "LOGOUT"


def test_login_is_not_tried_if_upsmon_keeps_running(place: Place) -> None:
    with serve_answers({**make_answers(ups="OL"), **REFUSED}) as fake:
        files = secondary_at(fake.port)
        place.write_files(files)
        deployment = place.make_deployment({**files, "upssched.conf": "CMDSCRIPT /bin/false\n"})
        deployment.require_logins(deployment.plan_change(), "")
        assert fake.asked == []


def test_login_that_upsd_has_forgotten_stops_a_restart(place: Place) -> None:
    """The connection that upsmon has still counts as a login; the next one would be refused."""
    with serve_answers({**make_answers(ups="OL"), **REFUSED}) as fake:
        files = secondary_at(fake.port)
        place.write_files(files)
        deployment = place.make_deployment({**files, "upsmon.conf": files["upsmon.conf"] + "DEADTIME 20\n"})
        with pytest.raises(DeployError, match="ACCESS-DENIED"):
            deployment.require_logins(deployment.plan_change(), "")


@pytest.mark.parametrize(
    ("power", "is_deployed", "is_problem"), [(1, False, True), (1, True, False), (0, False, False)]
)
def test_new_login_needs_an_upsd_that_answers(
    place: Place, unused_port: int, power: int, is_deployed: bool, is_problem: bool
) -> None:
    files = secondary_at(unused_port)
    files["upsmon.conf"] = files["upsmon.conf"].replace(" 1 media", f" {power} media")
    if is_deployed:
        place.write_files(files)
    deployment = place.make_deployment({**files, "upsmon.conf": files["upsmon.conf"] + "DEADTIME 20\n"})
    decided = deployment.plan_change()
    if not is_problem:
        deployment.require_logins(decided, "")
        return
    with pytest.raises(DeployError, match="cannot be reached"):
        deployment.require_logins(decided, "")


@pytest.mark.parametrize(
    ("first_line", "user", "is_problem"), [(OURS, "media", True), (OURS, "other", False), ("", "media", False)]
)
def test_secondary_that_was_deployed_needs_its_password(first_line: str, user: str, is_problem: bool) -> None:
    """A new secondary has none yet; what stops it is the login that upsd does not know."""
    old = {**SECONDARY, "upsmon.conf": first_line + SECONDARY["upsmon.conf"].replace("media", user)}
    new = with_text("upsmon.conf", "secret2", TO_BE_MADE, SECONDARY)
    problem = secrets.find_replaced_secrets(old, new, POLICY)
    assert problem.startswith("no password of media is kept in /site/.homelab-nut: was this site") is is_problem


def test_secondary_may_get_another_password() -> None:
    """upsd decides: a run that rotated the passwords may not have reached this secondary."""
    old = {**SECONDARY, "upsmon.conf": OURS + SECONDARY["upsmon.conf"]}
    assert not secrets.find_replaced_secrets(old, with_text("upsmon.conf", "secret2", "other", SECONDARY), POLICY)


def test_secondary_does_not_get_another_authority() -> None:
    path = nss.database_path(nss.TlsMaterial("ca"))
    old = {**SECONDARY, "upsmon.conf": f"{OURS}{SECONDARY['upsmon.conf']}CERTPATH {path}\n"}
    assert not secrets.find_replaced_secrets(old, SECONDARY, POLICY, "ca")
    policy = replace(POLICY, authority_kept=False)
    assert "no certificate authority is kept in" in secrets.find_replaced_secrets(old, SECONDARY, policy, "ca")


def test_primary_tries_only_its_logins_to_other_hosts(place: Place, unused_port: int) -> None:
    with serve_answers({**make_answers(ups="OL"), **REFUSED}) as other:
        line = f"MONITOR ups@127.0.0.2:{other.port} 1 u p secondary\n"
        files = primary_at(unused_port)
        deployment = place.make_deployment({**files, "upsmon.conf": files["upsmon.conf"] + line})
        assert "127.0.0.2" in secrets.find_refused_login({}, deployment.new_files)
        assert not secrets.find_refused_login({}, files)


def test_former_primary_of_ours_may_become_a_secondary(place: Place) -> None:
    place.write_files({**PRIMARY, "ups.conf": OURS + PRIMARY["ups.conf"]})
    deployment = place.make_deployment(SECONDARY)
    assert deployment.is_former_primary
    assert deployment.plan_change()
