# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Says in one sentence why Ansible can't log in to a host, or is not root there, and what to do about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ..module_utils._nut.base.text import one_line, printable

# what ssh prints around the line that matters
_SSH_NOISE = re.compile(
    r"^(?:Warning: Permanently added|debug\d|\*\*|Pseudo-terminal|Connection (?:to|closed)|lost connection|@|\s*$)"
)
# what Ansible puts before the words of ssh
_ANSIBLE_WORDS = re.compile(
    r"^(?:Failed to connect to the host via \w+:|Data could not be sent to remote host .*? over ssh:)\s*"
)


@dataclass(frozen=True)
class LoginProblem:
    """Why the login to a host does not suffice."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        """Return both as one text."""
        return f"{self.problem}: {self.remedy}"


@dataclass(frozen=True)
class LoginWay:
    """How Ansible logs in to a host."""

    host: str  # the name in the inventory
    user: str = ""  # "" if nothing sets it
    ssh: Sequence[str] = ()  # the command that logs in to it; () if Ansible does not use ssh
    become: str = ""  # the become method; "" if Ansible does not become another user
    become_user: str = "root"
    is_local: bool = False  # whether it is the controller itself

    @property
    def ssh_command(self) -> str:
        """Return the command that logs in, for a shell."""
        return shlex.join(self.ssh)

    @property
    def who(self) -> str:
        """Return the user that logs in, for a message."""
        return self.user or "the user of the login"


def build_ssh_command(
    host: str, user: str = "", port: object = None, key: str = "", more: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the command that logs in to a host as Ansible does. more: arguments of the user's, such as -J for a jump host."""
    given = [*(["-p", str(port)] if port and str(port) != "22" else []), *(["-i", key] if key else [])]
    return ("ssh", *more, *given, f"{user}@{host}" if user else host)


def explain_connection(way: LoginWay, error: str) -> LoginProblem:
    """Return why a host can't be reached. error: what Ansible or ssh said."""
    if not way.ssh:
        return LoginProblem(
            f"{way.host} can't be reached ({_pick_line(error)})", "check that it is on, and its ansible_connection"
        )
    address = re.sub(r"^.*@", "", way.ssh[-1])
    port = way.ssh[way.ssh.index("-p") + 1] if "-p" in way.ssh else ""
    if "IDENTIFICATION HAS CHANGED" in error:
        known = shlex.quote(f"[{address}]:{port}") if port else address
        return LoginProblem(
            f"{way.host} has another ssh host key than the one that is known here",
            f"if you have reinstalled it, run `ssh-keygen -R {known}`, then `{way.ssh_command}` once, and compare the fingerprint",
        )
    if re.search(r"Host key verification failed|host key is known for|Host Key checking is enabled", error):
        return LoginProblem(
            f"the ssh host key of {way.host} is not known here",
            f"run `{way.ssh_command}` once, compare the fingerprint that it shows, and answer yes",
        )
    if re.search(r"Permission denied|Too many authentication failures|Invalid/incorrect", error):
        is_password = "Invalid/incorrect" in error
        copy = (
            "use the right password"
            if is_password
            else f"`ssh-copy-id {shlex.join(way.ssh[1:])}` installs your key there"
        )
        return LoginProblem(
            f"{way.host} refuses the ssh login of {way.who}",
            f"`{way.ssh_command}` must log in without a question; {copy}",
        )
    if re.search(r"Could not resolve hostname", error):
        return LoginProblem(
            f"{way.host} can't be reached by ssh, because {address} has no address here",
            f"set ansible_host of {way.host} to its address, and test it with `{way.ssh_command}`",
        )
    return LoginProblem(
        f"{way.host} can't be reached by ssh ({_pick_line(error)})",
        f"check that it is on, and test it with `{way.ssh_command}`",
    )


def explain_become(way: LoginWay, output: str) -> LoginProblem:
    """Return why Ansible can't become root on a host. output: what Ansible or the become method said."""
    problem = f"{way.who} can't become {way.become_user} on {way.host} with {way.become}"
    as_root = f"set ansible_user of {way.host} to root" if not way.is_local else "run this as root"
    lines = output.lower()
    if re.search(rf"{way.become}: (?:command )?not found|{way.become}: no such file|no such file or directory", lines):
        return LoginProblem(
            f"{problem}: there is no {way.become}",
            f"install it there (as root: apt install {way.become}), or {as_root}",
        )
    if re.search(r"incorrect \w+ password|sorry, try again|authentication failure|\d incorrect password", lines):
        return LoginProblem(
            f"{problem}: the password is wrong", "run this again with -K (args=-K), and type the right one"
        )
    if re.search(
        r"password is required|missing \w+ password|password prompt|escalation prompt|terminal is required", lines
    ):
        return LoginProblem(
            f"{problem} without a password",
            f"run this with -K (args=-K), which asks for the password, or allow it without one (NOPASSWD in sudoers), or {as_root}",
        )
    if re.search(r"not in the sudoers file|not allowed to (?:execute|run)|may not run", lines):
        return LoginProblem(
            f"{problem}: it is not allowed to",
            f"allow it there (as root: usermod -aG sudo {way.user or 'USER'}), or {as_root}",
        )
    return LoginProblem(f"{problem} ({_pick_line(output)})", f"see why, or {as_root}")


def explain_user(way: LoginWay, uid: int, user: str) -> LoginProblem | None:
    """Return why the user that the tasks run as does not suffice; None for root."""
    if uid == 0:
        return None
    if way.become:
        return LoginProblem(
            f"Ansible becomes {user} on {way.host}, which is not root",
            f"remove ansible_become_user, or set it to root for {way.host}",
        )
    other = "run this as root" if way.is_local else "or set ansible_user to root"
    return LoginProblem(
        f"{user} on {way.host} is not root",
        f"set ansible_become: true for {way.host} in the inventory (if sudo asks for a password, also run this with -K: args=-K), {other}",
    )


def _pick_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [_ANSIBLE_WORDS.sub("", line) for line in text.splitlines()]
    useful = [line for line in lines if not _SSH_NOISE.match(line)]
    return printable(one_line((useful or lines or [""])[-1]) or "no answer", 200)
