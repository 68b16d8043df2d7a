# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The library's client and a real upsd, in a container that has NUT, with drivers of which all is known.

upsd's side of a driver is a socket: it sends DUMPALL, PING, SET and INSTCMD, and is told values (docs/sock-protocol.txt).
So a thread can be a driver that has lists and ranges, and that fails as it is told to. Reads a job from the scratch
directory, prints what the library returned or raised, as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import inside
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar, nss
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import client as net_client
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import commands as net_commands
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import connection as net_connection
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot

# what a driver says of an order (drivers/upshandler.h)
CODES = {"done": 0, "unknown": 1, "invalid": 2, "failed": 3}


class Driver:
    """A driver. lines: what it tells at first. commands: what each comes to: a word of CODES, "mute", or a list of lines
    [seconds, line] that it tells afterwards."""

    def __init__(self, name: str, lines: list[str], commands: dict[str, Any]) -> None:
        self.lines = lines
        self.commands = commands
        self.heard: list[list[str]] = []
        path = inside.HERE / f"fake-{name}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        shutil.chown(path, "root", "nut")
        path.chmod(0o770)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _unused = self._listener.accept()
            # upsd may end at any time, and the driver then waits for the next one
            with (
                contextlib.suppress(OSError),
                connection,
                connection.makefile("r", encoding="latin-1", newline="\n") as asked,
            ):
                for line in asked:
                    self._answer(line, lambda said, to=connection: to.sendall(f"{said}\n".encode("latin-1")))

    def _answer(self, line: str, say: Callable[[str], None]) -> None:
        words = list(grammar.parse_lines(line)[0].words)
        if words[0] == "PING":
            say("PONG")
        elif words[0] == "DUMPALL":
            for one in [*self.lines, *(f"ADDCMD {name}" for name in self.commands), "DATAOK", "DUMPDONE"]:
                say(one)
        elif words[0] in ("SET", "INSTCMD"):
            tracking = words.index("TRACKING") if "TRACKING" in words else len(words)
            self.heard.append(words[:tracking])
            outcome = self.commands.get(words[1], "done") if words[0] == "INSTCMD" else "done"
            if words[0] == "SET":
                say(f"SETINFO {words[1]} {grammar.quote_word(words[2])}")
            if outcome != "mute" and tracking < len(words):
                say(f"TRACKING {words[tracking + 1]} {CODES[outcome] if isinstance(outcome, str) else 0}")
            if isinstance(outcome, list):
                threading.Thread(target=self._play, args=(outcome, say), daemon=True).start()

    @staticmethod
    def _play(steps: list[tuple[float, str]], say: Callable[[str], None]) -> None:
        for seconds, line in steps:
            time.sleep(seconds)
            with contextlib.suppress(OSError):
                say(line)


def client(**more: Any) -> net_client.UpsdClient:
    return net_client.UpsdClient("127.0.0.1", inside.PORT, timeout=5, **more)


def plain(value: Any) -> Any:
    """Make of an answer what JSON can hold: members of a dataclass by their names."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def attempt(ask: Callable[[], Any]) -> Any:
    """Return the answer; or the kind and the words of the error."""
    try:
        return plain(ask())
    except (net_errors.UpsdFailure, net_commands.OrderRefused) as error:
        return [type(error).__name__, str(error)]


def conversation(job: dict[str, Any]) -> list[Any]:
    """Ask method after method of one client."""
    answers: list[Any] = []
    tracking = ""
    with client() as one:
        for method, *given in job["ask"]:
            # "$" is the last id of a tracking
            words = [tracking if word == "$" else word for word in given]
            # the driver's answer takes its time
            end = time.monotonic() + (0.5 if method == "get_tracking" else 0)
            while True:
                answer = attempt(partial(getattr(one, method), *words))
                if answer != "PENDING" or time.monotonic() > end:
                    break
                time.sleep(0.02)
            if method in ("instcmd", "set_var") and isinstance(answer, str):
                tracking, answer = answer, "an id" if re.fullmatch("[0-9A-Fa-f-]{36}", answer) else answer
            answers.append(answer)
    return answers


def echo(job: dict[str, Any]) -> list[Any]:
    """Set a variable to values, one after another, and return what came back from the driver by upsd."""
    found = []
    with client() as one:
        one.authenticate("admin", job["password"])
        for value in job["values"]:
            one.renew_timeout()
            one.set_var("a", "ups.id", value)
            end = time.monotonic() + 3
            while one.get_var("a", "ups.id") != value and time.monotonic() < end:
                time.sleep(0.01)
            found.append(one.get_var("a", "ups.id"))
    return found


def orders(job: dict[str, Any]) -> list[Any]:
    """Give orders as the module does."""
    found = []
    for username, password, method, words, keywords in job["orders"]:
        operator = net_commands.Operator(client, "a", username, password)
        permission = net_commands.Permission(**keywords.pop("permission", {}))
        arguments = [*words, permission] if method != "set_fsd" else [permission]
        found.append(attempt(partial(getattr(operator, method), *arguments, **keywords)))
    return found


def encrypted(job: dict[str, Any]) -> list[Any]:
    """Connect with TLS."""
    found = []
    for ca, name in job["trust"]:

        def see(ca: str = ca, name: str = name) -> Any:
            with client(tls=net_connection.TlsOptions(ca, name)) as one:
                expires = one.peer_not_after
                return [
                    one.get_version(),
                    one.tls_version,
                    expires.isoformat() if expires else None,
                    one.list_vars("a"),
                ]

        found.append(attempt(see))
    return found


def looked(job: dict[str, Any]) -> list[Any]:
    """Look as ups_info does, while others are logged in."""
    with client() as in_front:
        in_front.authenticate("look", "x")
        in_front.login("a")
        with client() as one:
            report = snapshot.observe_upsd(one, job.get("ups"), job.get("expected", ()), gather=snapshot.GATHER)
        answer = plain(report)
        in_front.logout()
    with client() as one:
        return [answer, one.num_logins("a")]


def said(job: dict[str, Any]) -> list[str]:
    """Send lines as they are, a connection a conversation, and return what upsd answers."""
    where = ("127.0.0.1", inside.PORT)
    return [inside.talk(socket.create_connection(where, inside.SECONDS), lines) for lines in job["conversations"]]


OPERATIONS = {function.__name__: function for function in (conversation, echo, orders, encrypted, looked, said)}


def main() -> None:
    job = json.loads((inside.HERE / "job.json").read_text())
    for name, one in job.get("drivers", {}).items():
        Driver(name, one["lines"], one.get("commands", {}))
    if "tls" in job:
        folder = inside.HERE / "tls"
        nss.make_database(folder, nss.TlsMaterial(**job["tls"]), inside.runner)
    dummies = job.get("dummies", [])
    with inside.ExitStack() as stack:
        for name in dummies:
            stack.enter_context(inside.started(str(inside.PROGRAMS / "dummy-ups"), "-F", "-a", name))
        end = time.monotonic() + inside.SECONDS / 2
        while not all((inside.HERE / f"dummy-ups-{name}").exists() for name in dummies) and time.monotonic() < end:
            time.sleep(0.05)
        server = stack.enter_context(inside.started(str(inside.PROGRAMS / "upsd"), "-F"))
        connection = inside.connect(server)
        if connection is None:
            sys.exit(inside.said("upsd"))
        connection.close()
        wait_for_data(job.get("drivers", {}), dummies)
        print(json.dumps(OPERATIONS[job["operation"]](job)))


def wait_for_data(drivers: dict[str, Any], dummies: list[str]) -> None:
    """Wait until upsd has all that the drivers tell: it answers its clients between two lines of theirs."""
    told = {
        name: {line.split()[1] for line in driver["lines"] if line.startswith("SETINFO ")}
        | set(driver.get("commands", {}))
        for name, driver in drivers.items()
    }
    gather = (snapshot.VARIABLES, snapshot.COMMANDS)
    end = time.monotonic() + inside.SECONDS / 2
    while time.monotonic() < end:
        with client() as one:
            states = snapshot.take_snapshot(one, sorted([*drivers, *dummies]), gather)
            if all(
                state.fresh and told.get(state.name, set()) <= {*state.variables, *state.commands} for state in states
            ):
                return
        time.sleep(0.05)
    sys.exit(f"no data: {inside.said('upsd')}")


if __name__ == "__main__":
    main()
