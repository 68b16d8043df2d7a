# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The words of ssh, sudo and Ansible, and the sentences made of them."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.plugin_utils.login import (
    LoginWay,
    build_ssh_command,
    explain_become,
    explain_connection,
    explain_user,
)

SSH = LoginWay("cellar", "ops", build_ssh_command("10.99.7.11", "ops"))
PORT = LoginWay("cellar", "ops", build_ssh_command("fd00::11", "ops", 2222, "/keys/my id", ["-J", "jump"]))
SUDO = LoginWay("cellar", "ops", SSH.ssh, "sudo")
HERE = LoginWay("cellar", is_local=True)
CHANGED = """\
Failed to connect to the host via ssh: @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Host key verification failed."""


@pytest.mark.parametrize(
    ("way", "error", "problem", "remedy"),
    [
        (
            SSH,
            "Failed to connect to the host via ssh: Host key verification failed.",
            "the ssh host key of cellar is not known here",
            "run `ssh ops@10.99.7.11` once, compare the fingerprint that it shows, and answer yes",
        ),
        (
            SSH,
            'Data could not be sent to remote host "10.99.7.11". Make sure this host can be reached over ssh: No ED25519 host key is '
            "known for 10.99.7.11 and you have requested strict checking.\r\nHost key verification failed.",
            "the ssh host key of cellar is not known here",
            "run `ssh ops@10.99.7.11` once",
        ),
        (
            PORT,
            "Host key verification failed.",
            "not known here",
            "run `ssh -J jump -p 2222 -i '/keys/my id' ops@fd00::11` once",
        ),
        (SSH, CHANGED, "cellar has another ssh host key", "`ssh-keygen -R 10.99.7.11`, then `ssh ops@10.99.7.11` once"),
        (PORT, CHANGED, "cellar has another ssh host key", "`ssh-keygen -R '[fd00::11]:2222'`"),
        (
            SSH,
            "ops@10.99.7.11: Permission denied (publickey).",
            "cellar refuses the ssh login of ops",
            "`ssh-copy-id ops@10.99.7.11` installs your key there",
        ),
        (SSH, "Invalid/incorrect username/password.", "cellar refuses the ssh login of ops", "use the right password"),
        (
            SSH,
            "ssh: connect to host 10.99.7.11 port 22: Connection timed out\r\n",
            "cellar can't be reached by ssh (ssh: connect to host 10.99.7.11 port 22: Connection timed out)",
            "check that it is on, and test it with `ssh ops@10.99.7.11`",
        ),
        (SSH, "ssh: Could not resolve hostname cellar", "10.99.7.11 has no address here", "set ansible_host of cellar"),
        (HERE, "no such container", "cellar can't be reached (no such container)", "check that it is on"),
    ],
)
def test_failed_connection_names_the_command_that_helps(way: LoginWay, error: str, problem: str, remedy: str) -> None:
    found = explain_connection(way, error)
    assert problem in found.problem
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("output", "problem", "remedy"),
    [
        ("/bin/sh: 1: sudo: not found", "there is no sudo", "as root: apt install sudo"),
        ("sudo: a password is required", "without a password", "run this with -K"),
        ("Missing sudo password", "without a password", "run this with -K"),
        ("Timeout (12s) waiting for privilege escalation prompt: ", "without a password", "run this with -K"),
        ("Incorrect sudo password", "the password is wrong", "type the right one"),
        ("ops is not in the sudoers file.", "it is not allowed to", "usermod -aG sudo ops"),
        (
            "sudo: unable to resolve host cellar\nsudo: no space left",
            "(sudo: no space left)",
            "set ansible_user of cellar to root",
        ),
    ],
)
def test_failed_sudo_is_explained(output: str, problem: str, remedy: str) -> None:
    found = explain_become(SUDO, output)
    assert found.problem.startswith("ops can't become root on cellar with sudo")
    assert problem in found.problem
    assert remedy in found.remedy


def test_root_suffices() -> None:
    assert explain_user(SSH, 0, "root") is None


@pytest.mark.parametrize(
    ("way", "text"),
    [
        (SSH, "ops on cellar is not root: set ansible_become: true for cellar in the inventory (if sudo asks for a password, also run "
              "this with -K: args=-K), or set ansible_user to root"),
        (SUDO, "Ansible becomes ops on cellar, which is not root: remove ansible_become_user, or set it to root for cellar"),
    ],
)  # fmt: skip
def test_other_user_than_root_is_told_what_to_set(way: LoginWay, text: str) -> None:
    assert str(explain_user(way, 1000, "ops")) == text


def test_hostile_banner_is_made_harmless() -> None:
    found = explain_connection(SSH, "\x1b[2Jgone " + "x" * 5000)
    assert found.problem.isprintable()
    assert len(found.problem) < 300
