# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import client as net_client
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import connection as net_connection
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, serve_answers
from hypothesis import example, given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def server() -> Iterator[FakeUpsd]:
    with serve_answers() as fake:
        yield fake


def test_all_queries_are_answered(server: FakeUpsd) -> None:
    with server.open_client() as client:
        assert client.get_version() == "2.8.1"
        assert client.get_net_version() == "1.3"
        assert client.list_ups() == {"ups": 'Rack "A" #1 \\', "spare": "Description unavailable"}
        assert client.list_vars("ups") == {
            "battery.charge": "100",
            "ups.mfr": 'A "q" # \\ b',
            "ups.status": "OL CHRG",
        }
        assert client.get_var("ups", "ups.status") == "OL CHRG"
        assert client.list_clients("ups") == ("127.0.0.1", "::ffff:192.0.2.3")
        assert client.num_logins("ups") == 2
        assert client.local_address == "127.0.0.1"


def test_writable_variables_and_commands_are_listed(server: FakeUpsd) -> None:
    with server.open_client() as client:
        assert client.list_rw("ups") == {"ups.delay.shutdown": "020", "ups.id": "x y"}
        assert client.list_cmds("ups") == ("beeper.mute", "load.off")
        assert client.list_enum("ups", "ups.id") == ("x y", "z")
        assert client.list_range("ups", "ups.delay.shutdown") == ((-1, 300),)
        assert client.get_type("ups", "ups.id") == net_client.VariableType(True, True, False, 32, False)
        assert client.get_type("ups", "ups.delay.shutdown") == net_client.VariableType(True, False, True, None, True)
        assert client.get_type("ups", "ups.odd") == net_client.VariableType(False, False, False, None, False)
        assert client.get_desc("ups", "ups.delay.shutdown") == "Seconds"
        assert client.get_cmddesc("ups", "beeper.mute") == "Be quiet"
        assert client.ups_desc("ups") == "Rack"


def test_orders_are_sent_and_tracked(server: FakeUpsd) -> None:
    with server.open_client() as client:
        client.authenticate("admin", 'a "b" #=')
        client.set_tracking()
        assert client.instcmd("ups", "beeper.mute") == "1d"
        assert client.instcmd("ups", "load.on.delay", "a b") is None
        assert client.set_var("ups", "a", "0") == "2d"
        assert client.set_var("ups", "a", '"\\# =') is None
        assert client.set_var("ups", "a", "") is None
        assert [client.get_tracking(order) for order in ("pending", "done", "failed", "invalid", "unknown")] == [
            *("PENDING", "SUCCESS", "FAILED", "INVALID-ARGUMENT", "UNKNOWN")
        ]
        client.fsd("ups")
        client.check_primary("ups")
        client.check_primary("old")
        client.login("ups")
        client.logout()
        with pytest.raises(net_errors.Unreachable, match="closed"):
            client.get_net_version()


@pytest.mark.parametrize(
    ("request_line", "answer", "ask"),
    [
        ("USERNAME admin", "HELLO\n", lambda client: client.authenticate("admin", "secret")),
        ("SET TRACKING ON", "ON\n", lambda client: client.set_tracking()),
        ("GET TRACKING x", "DONE\n", lambda client: client.get_tracking("x")),
        ("GET TRACKING x", "SUCCESS now\n", lambda client: client.get_tracking("x")),
        ("INSTCMD ups x", "DONE\n", lambda client: client.instcmd("ups", "x")),
        ("INSTCMD ups x", "OK TRACKING\n", lambda client: client.instcmd("ups", "x")),
        ("INSTCMD ups x", "OK NUMBER 1\n", lambda client: client.instcmd("ups", "x")),
        ("SET VAR ups x 1", "VAR ups x 1\n", lambda client: client.set_var("ups", "x", "1")),
        ("FSD ups", "OK\n", lambda client: client.fsd("ups")),
        ("PRIMARY ups", "OK MASTER-GRANTED\n", lambda client: client.check_primary("ups")),
        ("LOGIN ups", "YES\n", lambda client: client.login("ups")),
        ("LOGOUT", "NO\n", lambda client: client.logout()),
        ("GET TYPE ups x", "TYPE ups y RW\n", lambda client: client.get_type("ups", "x")),
        ("GET TYPE ups x", "TYPE other x RW\n", lambda client: client.get_type("ups", "x")),
        ("GET TYPE ups x", "VAR ups x RW\n", lambda client: client.get_type("ups", "x")),
        ("GET TYPE ups x", "TYPE ups\n", lambda client: client.get_type("ups", "x")),
        (
            "LIST RANGE ups x",
            "BEGIN LIST RANGE ups x\nRANGE ups x 1 many\nEND LIST RANGE ups x\n",
            lambda client: client.list_range("ups", "x"),
        ),
        (
            "LIST ENUM ups x",
            "BEGIN LIST ENUM ups x\nENUM ups y 1\nEND LIST ENUM ups x\n",
            lambda client: client.list_enum("ups", "x"),
        ),
        (
            "LIST RW ups",
            "BEGIN LIST RW ups\nVAR ups x 1\nEND LIST RW ups\n",
            lambda client: client.list_rw("ups"),
        ),
        (
            "LIST CMD ups",
            "BEGIN LIST CMD ups\nEND LIST VAR ups\n",
            lambda client: client.list_cmds("ups"),
        ),
        (
            "LIST ENUM ups x",
            "BEGIN LIST ENUM ups x\nEND LIST RANGE ups x\n",
            lambda client: client.list_enum("ups", "x"),
        ),
    ],
)
def test_malformed_answer_to_an_order_is_an_error(
    request_line: str, answer: str, ask: Callable[[net_client.UpsdClient], object]
) -> None:
    with serve_answers({request_line: answer}) as server, server.open_client() as client:
        with pytest.raises(net_errors.BadAnswer, match=f"127.0.0.1:{server.port}"):
            ask(client)
        with pytest.raises(net_errors.Unreachable, match="closed"):
            client.get_net_version()


def test_list_of_ranges_may_end_as_in_upsd_2_7_4() -> None:
    answer = 'BEGIN LIST RANGE ups x\nRANGE ups x "1" "2"\nEND LIST ENUM ups x\n'
    with serve_answers({"LIST RANGE ups x": answer}) as server, server.open_client() as client:
        assert client.list_range("ups", "x") == ((1, 2),)
        assert client.get_net_version() == "1.3"


@pytest.mark.parametrize(
    "answer",
    [
        "GARBAGE PASSWORD s3cret-word\n",
        "ERR INVALID s3cret-word\n",
        "ERR s3cret-word\n",
        "ERR INVALID-ARGUMENT s3cret-word\n",
        '"s3cret-word\n\n',
        "s3cret-word\x7f\n",
    ],
)
def test_error_never_contains_the_password(answer: str) -> None:
    """A program that is not upsd may echo its input."""
    answers = {"PASSWORD s3cret-word": answer}
    with serve_answers(answers) as server, server.open_client() as client:
        with pytest.raises(net_errors.UpsdFailure, match="PASSWORD") as caught:
            client.authenticate("admin", "s3cret-word")
        assert f"127.0.0.1:{server.port}" in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_password_that_cannot_be_sent_is_refused(server: FakeUpsd) -> None:
    with server.open_client() as client, pytest.raises(grammar.Unencodable) as caught:
        client.authenticate("admin", "s3cret\nINSTCMD ups load.off")
    assert "s3cret" not in str(caught.value)
    assert server.asked == ["USERNAME admin"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.set_var("ups", "a", "1\nFSD ups"),
        lambda client: client.set_var("ups\nFSD ups", "a", "1"),
        lambda client: client.instcmd("ups", "beeper.mute\rFSD ups"),
        lambda client: client.instcmd("ups", "beeper.mute", "\u00e9"),
        lambda client: client.set_var("ups", "a", "x" * 513),
    ],
)
def test_word_that_upsd_would_change_is_refused(
    server: FakeUpsd, ask: Callable[[net_client.UpsdClient], object]
) -> None:
    with server.open_client() as client:
        with pytest.raises(grammar.Unencodable):
            ask(client)
        assert client.get_net_version() == "1.3"
    assert server.asked == ["NETVER"]


WORD = st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20), max_size=grammar.WORD_LIMIT)


@given(st.lists(WORD, min_size=1, max_size=grammar.WORDS_LIMIT))
def test_joined_words_are_split_again(words: list[str]) -> None:
    assert net_connection.split_line(grammar.join_words(words)) == tuple(words)


LINE = st.one_of(
    st.text(st.characters(max_codepoint=0xFF, exclude_characters="\n"), max_size=40),
    st.text(st.sampled_from('VAR ups.1 "\\#=\t\x7f\xe9'), max_size=40),
    st.builds(
        '{} "{}"'.format, st.lists(st.text("a.1-", max_size=3), max_size=40).map(" ".join), st.text('ab "', max_size=5)
    ),
    st.builds('VAR ups x "{}"'.format, st.integers(500, 530).map("x".__mul__)),
)


@given(LINE)
@example(" ".join(["x"] * 31) + ' "y"')
@example(" ".join(["x"] * 32) + ' "y"')
@example('VAR ups x "a" ')
@example("x" * 513)
@example('"VAR" ups x ""')
def test_lines_are_split_as_by_the_parser(line: str) -> None:
    """Most lines take a fast path, which must give the same result."""
    lines = grammar.parse_lines(line + "\n")
    assert net_connection.split_line(line) == (lines[0].words if len(lines) == 1 and "\x7f" not in line else None)


def test_client_never_logs_in(server: FakeUpsd) -> None:
    with server.open_client() as client:
        snapshot.observe_upsd(client, gather=snapshot.GATHER)
    assert {request.split()[0] for request in server.asked} == {"VER", "NETVER", "LIST", "GET"}


@pytest.mark.parametrize(
    ("ask", "kind", "code"),
    [
        (lambda client: client.list_vars("spare"), net_errors.DataStale, "DATA-STALE"),
        (lambda client: client.list_vars("dead"), net_errors.DriverNotConnected, "DRIVER-NOT-CONNECTED"),
        (lambda client: client.list_vars("nix"), net_errors.UnknownUps, "UNKNOWN-UPS"),
        (lambda client: client.list_clients("secret"), net_errors.AccessDenied, "ACCESS-DENIED"),
        (lambda client: client.get_var("ups", "nix"), net_errors.VarNotSupported, "VAR-NOT-SUPPORTED"),
        (lambda client: client.get_var("ups", 'x "#'), net_errors.InvalidArgument, "INVALID-ARGUMENT"),
        (lambda client: client.list_vars("odd"), net_errors.UnknownCommand, "UNKNOWN-COMMAND"),
        (lambda client: client.instcmd("ups", "nix"), net_errors.CmdNotSupported, "CMD-NOT-SUPPORTED"),
        (lambda client: client.instcmd("ups", "load.off"), net_errors.AccessDenied, "USERNAME-REQUIRED"),
        (lambda client: client.set_var("ups", "a", "1"), net_errors.ReadOnly, "READONLY"),
        (lambda client: client.set_var("ups", "a", "2"), net_errors.InvalidValue, "INVALID-VALUE"),
        (lambda client: client.set_var("ups", "a", "3"), net_errors.TooLong, "TOO-LONG"),
        (lambda client: client.set_var("ups", "a", "4"), net_errors.UpsdError, "SET-FAILED"),
        (lambda client: client.get_tracking("denied"), net_errors.AccessDenied, "ACCESS-DENIED"),
        (lambda client: client.get_tracking("off"), net_errors.NoTls, "FEATURE-NOT-CONFIGURED"),
        (lambda client: client.check_primary("denied"), net_errors.AccessDenied, "ACCESS-DENIED"),
    ],
)
def test_error_has_a_code_and_keeps_the_connection(
    server: FakeUpsd, ask: Callable[[net_client.UpsdClient], object], kind: type[net_errors.UpsdError], code: str
) -> None:
    with server.open_client() as client:
        with pytest.raises(net_errors.UpsdError, match=code) as caught:
            ask(client)
        assert type(caught.value) is kind
        assert f"upsd at 127.0.0.1:{server.port} answered {code}" in str(caught.value)
        assert caught.value.code == code
        assert client.get_net_version() == "1.3"


def test_error_instead_of_a_version_is_raised() -> None:
    with (
        serve_answers({"VER": "ERR ACCESS-DENIED\n"}) as server,
        server.open_client() as client,
        pytest.raises(net_errors.AccessDenied),
    ):
        client.get_version()


def test_names_are_compared_without_case() -> None:
    answers = {
        "LIST CLIENT UPS": "BEGIN LIST CLIENT UPS\nCLIENT ups 192.0.2.3\nEND LIST CLIENT UPS\n",
        "GET NUMLOGINS UPS": "NUMLOGINS UPS 1\n",
    }
    with serve_answers(answers) as server, server.open_client() as client:
        assert client.list_clients("UPS") == ("192.0.2.3",)
        assert client.num_logins("UPS") == 1
