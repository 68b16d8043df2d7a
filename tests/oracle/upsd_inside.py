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

# a driver's result codes for commands (drivers/upshandler.h)
CODES = {"done": 0, "unknown": 1, "invalid": 2, "failed": 3}


def send_line(connection: socket.socket, line: str) -> None:
    """Send a line as a driver does."""
    connection.sendall(f"{line}\n".encode("latin-1"))


class Driver:
    """A fake driver.

    lines: its data. commands: the outcome of each: a key of CODES, "mute" (no answer), or the lines that it sends after so
    many seconds: [[seconds, line], ...].
    """

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
        threading.Thread(target=self._serve_upsd, daemon=True).start()

    def _serve_upsd(self) -> None:
        while True:
            connection, _unused = self._listener.accept()
            # upsd may end at any time; then wait for the next one
            with (
                contextlib.suppress(OSError),
                connection,
                connection.makefile("r", encoding="latin-1", newline="\n") as asked,
            ):
                for line in asked:
                    self._answer_line(line, partial(send_line, connection))

    def _answer_line(self, line: str, say: Callable[[str], None]) -> None:
        words = list(grammar.parse_lines(line)[0].words)
        if words[0] == "PING":
            say("PONG")
        elif words[0] == "DUMPALL":
            for answer in [*self.lines, *(f"ADDCMD {name}" for name in self.commands), "DATAOK", "DUMPDONE"]:
                say(answer)
        elif words[0] in ("SET", "INSTCMD"):
            tracking = words.index("TRACKING") if "TRACKING" in words else len(words)
            self.heard.append(words[:tracking])
            outcome = self.commands.get(words[1], "done") if words[0] == "INSTCMD" else "done"
            if words[0] == "SET":
                say(f"SETINFO {words[1]} {grammar.quote_word(words[2])}")
            if outcome != "mute" and tracking < len(words):
                say(f"TRACKING {words[tracking + 1]} {CODES[outcome] if isinstance(outcome, str) else 0}")
            if isinstance(outcome, list):
                threading.Thread(target=self._play_steps, args=(outcome, say), daemon=True).start()

    @staticmethod
    def _play_steps(steps: list[tuple[float, str]], say: Callable[[str], None]) -> None:
        for seconds, line in steps:
            time.sleep(seconds)
            with contextlib.suppress(OSError):
                say(line)


def make_client(**more: Any) -> net_client.UpsdClient:
    return net_client.UpsdClient("127.0.0.1", inside.PORT, timeout=5, **more)


def to_json(value: Any) -> Any:
    """Return a value as JSON can hold it: a dataclass becomes a dict."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: to_json(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: to_json(one) for key, one in value.items()}
    return [to_json(member) for member in value] if isinstance(value, (list, tuple)) else value


def try_call(ask: Callable[[], Any]) -> Any:
    """Return the result of a call, or the class and the text of its error."""
    try:
        return to_json(ask())
    except (net_errors.UpsdFailure, net_commands.OrderRefused) as error:
        return [type(error).__name__, str(error)]


def hold_conversation(job: dict[str, Any]) -> list[Any]:
    """Call methods of one client in turn and return the results."""
    answers: list[Any] = []
    tracking = ""
    with make_client() as one:
        for method, *given in job["ask"]:
            # "$" stands for the latest tracking id
            words = [tracking if word == "$" else word for word in given]
            # the driver needs a moment to answer
            end = time.monotonic() + (0.5 if method == "get_tracking" else 0)
            while True:
                answer = try_call(partial(getattr(one, method), *words))
                if answer != "PENDING" or time.monotonic() > end:
                    break
                time.sleep(0.02)
            if method in ("instcmd", "set_var") and isinstance(answer, str):
                tracking, answer = answer, "an id" if re.fullmatch("[0-9A-Fa-f-]{36}", answer) else answer
            answers.append(answer)
    return answers


def echo_values(job: dict[str, Any]) -> list[Any]:
    """Set a variable to several values in turn, and return the values that upsd serves afterwards."""
    found = []
    with make_client() as one:
        one.authenticate("admin", job["password"])
        for value in job["values"]:
            one.renew_timeout()
            one.set_var("a", "ups.id", value)
            end = time.monotonic() + 3
            while one.get_var("a", "ups.id") != value and time.monotonic() < end:
                time.sleep(0.01)
            found.append(one.get_var("a", "ups.id"))
    return found


def give_orders(job: dict[str, Any]) -> list[Any]:
    """Give commands as the module does and return the results."""
    found = []
    for username, password, method, words, keywords in job["orders"]:
        operator = net_commands.Operator(make_client, "a", username, password)
        permission = net_commands.Permission(**keywords.pop("permission", {}))
        arguments = [*words, permission] if method != "set_fsd" else [permission]
        found.append(try_call(partial(getattr(operator, method), *arguments, **keywords)))
    return found


def connect_with_tls(job: dict[str, Any]) -> list[Any]:
    """Connect with TLS for each pair of authority and name, and return the results."""
    found = []
    for ca, name in job["trust"]:

        def take_snapshot_with_tls(ca: str = ca, name: str = name) -> Any:
            with make_client(tls=net_connection.TlsOptions(ca, name)) as one:
                expires = one.peer_not_after
                return [
                    one.get_version(),
                    one.tls_version,
                    expires.isoformat() if expires else None,
                    one.list_vars("a"),
                ]

        found.append(try_call(take_snapshot_with_tls))
    return found


def take_look(job: dict[str, Any]) -> list[Any]:
    """Take a snapshot as ups_info does, while a client is logged in."""
    with make_client() as in_front:
        in_front.authenticate("look", "x")
        in_front.login("a")
        with make_client() as one:
            report = snapshot.observe_upsd(one, job.get("ups"), job.get("expected", ()), gather=snapshot.GATHER)
        answer = to_json(report)
        in_front.logout()
    with make_client() as one:
        return [answer, one.num_logins("a")]


def exchange_lines(job: dict[str, Any]) -> list[str]:
    """Send lines unchanged, one connection per conversation, and return upsd's answers."""
    where = ("127.0.0.1", inside.PORT)
    return [inside.send_lines(socket.create_connection(where, inside.SECONDS), lines) for lines in job["conversations"]]


OPERATIONS = {
    function.__name__: function
    for function in (hold_conversation, echo_values, give_orders, connect_with_tls, take_look, exchange_lines)
}


def main() -> None:
    job = json.loads((inside.HERE / "job.json").read_text())
    for name, one in job.get("drivers", {}).items():
        Driver(name, one["lines"], one.get("commands", {}))
    if "tls" in job:
        folder = inside.HERE / "tls"
        nss.make_database(folder, nss.TlsMaterial(**job["tls"]), inside.run_program)
    dummies = job.get("dummies", [])
    with contextlib.ExitStack() as stack:
        for name in dummies:
            stack.enter_context(inside.run_daemon(inside.find_nut("dummy-ups"), "-F", "-a", name))
        end = time.monotonic() + inside.SECONDS / 2
        while not all((inside.HERE / f"dummy-ups-{name}").exists() for name in dummies) and time.monotonic() < end:
            time.sleep(0.05)
        server = stack.enter_context(inside.run_daemon(inside.find_nut("upsd"), "-F"))
        connection = inside.connect_to_upsd(server)
        if connection is None:
            sys.exit(inside.read_log("upsd"))
        connection.close()
        wait_for_data(job.get("drivers", {}), dummies)
        print(json.dumps(OPERATIONS[job["operation"]](job)))


def wait_for_data(drivers: dict[str, Any], dummies: list[str]) -> None:
    """Wait until upsd has all data of the drivers. It answers clients even while it has only part of them."""
    told = {
        name: {line.split()[1] for line in driver["lines"] if line.startswith("SETINFO ")}
        | set(driver.get("commands", {}))
        for name, driver in drivers.items()
    }
    gather = (snapshot.VARIABLES, snapshot.COMMANDS)
    end = time.monotonic() + inside.SECONDS / 2
    while time.monotonic() < end:
        with make_client() as one:
            states = snapshot.take_snapshot(one, sorted([*drivers, *dummies]), gather)
            if all(
                state.fresh and told.get(state.name, set()) <= {*state.variables, *state.commands} for state in states
            ):
                return
        time.sleep(0.05)
    sys.exit(f"no data: {inside.read_log('upsd')}")


if __name__ == "__main__":
    main()
