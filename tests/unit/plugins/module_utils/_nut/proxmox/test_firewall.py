# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import firewall
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.firewall import FirewallError, FirewallVerdict
from hypothesis import given
from hypothesis import strategies as st

RECORDINGS = Path(__file__).parents[4] / "recordings/proxmox"
RECORDED = json.loads((RECORDINGS / "firewall.json").read_text())
ROWS = json.loads((RECORDINGS / "firewall-rows.json").read_text())
CLIENTS = tuple(RECORDED["clients"])
SERVICES = {**firewall.SERVICES, "tftp": {"udp": 69}}
ON = "[OPTIONS]\nenable: 1\n"
NAS = "192.0.2.5"
OURS = ["IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493 # homelab.nut: a client of upsd"]


def host(*rules: str) -> str:
    return "\n".join(["[RULES]", *rules, ""])


def lets_in(rule: str, address: str = NAS, port: int = 3493) -> bool:
    seen = firewall.judge_clients(ON, host(rule), [address], port)
    assert seen.shut_out in ((), (address,))
    return not seen.shut_out


# Is it on?


@pytest.mark.parametrize(
    "cluster_fw",
    ["", "[RULES]\nIN DROP\n", "[OPTIONS]\nenable: 0\n", "[OPTIONS]\n# enable: 1\n", "enable: 1\n[OPTIONS]\npolicy_in: DROP\n"],
)  # fmt: skip
def test_firewall_is_off_by_default(cluster_fw: str) -> None:
    assert "cluster.fw" in firewall.explain_off(cluster_fw, "")
    seen = firewall.judge_clients(cluster_fw, host("IN DROP"), [NAS], 3493)
    assert seen == FirewallVerdict(firewall.explain_off(cluster_fw, ""))
    assert not seen.shut_out


def test_firewall_can_be_off_on_one_host() -> None:
    assert "host.fw" in firewall.explain_off(ON, "[OPTIONS]\nenable: 0\n")


@pytest.mark.parametrize(
    ("cluster_fw", "host_fw"),
    [
        (ON, ""),
        (ON, "[OPTIONS]\nenable: 1\n"),
        (ON, "[OPTIONS]\nenable: 0 # off\n"),
        (ON, "[RULES]\nenable: 0\n"),
        ("[options]\n\n  Enable:1  \n", ""),
        ("[OPTIONS]\nenable: 0\nenable: 1\n", ""),
        ("[OPTIONS]\r\n[OPTIONS]\nenable: 1\n", ""),
    ],
)
def test_firewall_is_on_with_enable_1(cluster_fw: str, host_fw: str) -> None:
    assert firewall.explain_off(cluster_fw, host_fw) == ""


def test_trial_lasts_a_minute() -> None:
    trial = "[OPTIONS]\nenable: 1700000000\n"
    assert firewall.explain_off(trial, "", now=1700000060) == ""
    assert "cluster.fw" in firewall.explain_off(trial, "", now=1700000061)
    assert "cluster.fw" in firewall.explain_off(trial, "")


# What Proxmox VE's own code answers


@pytest.mark.parametrize("release", ["pve8", "pve9"])
@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["name"])
def test_clients_are_judged_as_by_a_real_kernel(case: dict[str, Any], release: str) -> None:
    seen = firewall.judge_clients(case["cluster.fw"], case["host.fw"], CLIENTS, RECORDED["port"])
    assert bool(seen.off_reason) is (case[release]["firewall"] == "off")
    let_in = [client for client in CLIENTS if client not in seen.shut_out]
    if case["name"] in ("iface", "iface-other", "dest"):
        # not resolved: named instead
        assert (let_in, len(seen.unclear_rules)) == ([], 1)
    else:
        assert let_in == case[release]["in"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_clients_are_judged_as_by_pve_firewall(row: dict[str, Any]) -> None:
    seen = firewall.judge_clients(row["cluster.fw"], row["host.fw"], CLIENTS, 3493, services=SERVICES)
    let_in = [client for client in CLIENTS if client not in seen.shut_out]
    if "doubt" in row:
        assert let_in == [], row["source"]
        assert row["doubt"] in seen.unclear_rules[0]
    else:
        assert let_in == row["real"], row["source"]
    hint = firewall.describe_missing_rules(seen, {name: (name,) for name in CLIENTS}, 3493, Path("host.fw"))
    assert row.get("says", "") in " ".join(hint)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_our_rules_let_clients_in_or_the_reason_is_named(row: dict[str, Any]) -> None:
    text = firewall.with_rules(row["host.fw"], firewall.make_rules(CLIENTS, 3493))
    seen = firewall.judge_clients(row["cluster.fw"], text, CLIENTS, 3493, services=SERVICES)
    assert seen.shut_out == (CLIENTS if seen.refused_rules else seen.blacklisted)
    hint = firewall.describe_missing_rules(seen, {name: (name,) for name in CLIENTS}, 3493, Path("host.fw"))
    assert bool(hint) is bool(seen.shut_out)
    assert not any("Add these lines" in line for line in hint)


NFTABLES = "[OPTIONS]\nnftables: 1\n"
ACCEPT = "IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493"


@pytest.mark.parametrize(
    "rule",
    [ACCEPT, "IN ACCEPT -source  192.0.2.5 -p\ttcp -dport 3493", "in accept -p tcp -dport 3493\r", ACCEPT + " # NUT"],
)
def test_proxmox_firewall_takes_more_than_pve_firewall(rule: str) -> None:
    text = f"{NFTABLES}{host(rule)}"
    assert firewall.judge_clients(ON, text, [NAS], 3493).shut_out == ()
    assert firewall.judge_clients(ON, text.replace("ACCEPT", "DROP").replace("accept", "drop"), [NAS], 3493).shut_out


@pytest.mark.parametrize(
    ("cluster_fw", "rules", "words"),
    [
        (ON, ["[FOO]"], "[FOO]"),
        (ON, ["IN ACCEPT -log loud"], "-log must be one of"),
        (ON, ["IN ACCEPT -p tcp -p tcp"], "an option only once"),
        (ON, ["IN ACCEPT -p tcp --proto tcp"], "an option only once"),
        (ON, [ACCEPT + " # a # b"], "comment at the last #"),
        (ON + "enable: 1\n", [], "only once"),
        ("[OPTIONS]\nENABLE: 1\n", [], "lower case"),
        (ON + "[ALIASES]\nnas 192.0.2.5\nNAS 192.0.2.6\n", [], "only once"),
        (ON + "[ipset clients]\n", [], "spelled like this"),
        (ON + "[IPSET clients]\n[IPSET clients]\n", [], "only once"),
        (ON + "[group ups]\n[group ups]\n", [], "only once"),
        (ON, ["IN DROP -source nas"], "no alias nas"),
        (ON, ["|IN DROP -source nas"], "no alias nas"),
        (ON, ["|IN ACCEPT -p tcp -dport foo"], "/etc/services has no foo"),
        (ON, [ACCEPT + " #"], "no empty comment"),
        (ON, ["IN Foo(ACCEPT)"], "no macro Foo"),
        (ON, ["IN ssh(ACCEPT)"], "no macro ssh"),
        (ON, ["GROUP ups"], "no such group"),
        (ON + "[group ups]\n", ["group ups"], "GROUP in upper case"),
        (ON + "[group Ups]\n", [], "capital letters"),
        (ON + "[IPSET Clients]\n", [], "capital letters"),
        (ON + "[IPSET clients]\n192.0.2.5#nas\n", [], "a blank before the comment"),
        (ON + "[ALIASES]\nnas 192.0.2.5#nas\n", [], "a blank before the comment"),
        (ON + "[ALIASES]\nn.as 192.0.2.5\n", [], "does not take such a name"),
        (ON, ["[OPTIONS]", "log_level_in: INFO"], "log level in lower case"),
        (ON, ["[OPTIONS]", "log_level_in:"], "log level in lower case"),
    ],
)
def test_proxmox_firewall_rejects_whole_files(cluster_fw: str, rules: list[str], words: str) -> None:
    text = NFTABLES + host(ACCEPT, *rules)
    seen = firewall.judge_clients(cluster_fw, text, [NAS], 3493)
    assert (seen.shut_out, seen.has_rule) == ((NAS,), (NAS,))
    assert words in seen.refused_rules[0]
    # pve-firewall goes on
    for other in (text.replace("nftables: 1", "nftables: 0"), text):
        seen = firewall.judge_clients(cluster_fw, other, [NAS], 3493, has_proxmox_firewall=other is not text)
        assert seen == FirewallVerdict("")


def test_proxmox_firewall_takes_an_address_with_an_exclamation_mark_out_of_the_set() -> None:
    cluster_fw = f"{ON}[IPSET clients]\n!192.0.2.0/24\n192.0.2.5\n"
    rule = host("IN ACCEPT -source +clients -p tcp -dport 3493")
    # for ipset, the smallest network decides
    assert firewall.judge_clients(cluster_fw, rule, [NAS], 3493).shut_out == ()
    assert firewall.judge_clients(cluster_fw, NFTABLES + rule, [NAS], 3493).shut_out == (NAS,)


def test_services_are_read_from_the_host(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc/services").write_text("# ssh 1/tcp\nups\t3493/tcp nut # alias\n")
    texts = (ON, host("IN ACCEPT -p tcp -dport ups"))
    assert firewall.judge_host(texts, [NAS], 3493, root).shut_out == ()
    assert firewall.judge_host((ON, host("IN ACCEPT -p tcp -dport nut")), [NAS], 3493, root).shut_out == (NAS,)
    (root / "etc/services").unlink()
    assert firewall.judge_host((ON, host("IN ACCEPT -p tcp -dport nut")), [NAS], 3493, root).shut_out == ()


def test_option_nftables_needs_its_program(root: Path) -> None:
    texts = (ON, NFTABLES + host(ACCEPT, "[FOO]"))
    assert firewall.judge_host(texts, [NAS], 3493, root).shut_out == ()
    program = root / firewall.PROXMOX_FIREWALL
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    assert firewall.judge_host(texts, [NAS], 3493, root).shut_out == (NAS,)


# Who is let in?


def test_unmatched_packets_get_policy_in() -> None:
    assert firewall.judge_clients(ON, "", [NAS], 3493) == FirewallVerdict("", (NAS,), ())
    assert firewall.judge_clients(ON + "policy_in: REJECT\n", "", [NAS], 3493).shut_out == (NAS,)
    assert firewall.judge_clients(ON + "policy_in: ACCEPT\n", "", [NAS], 3493).shut_out == ()
    assert firewall.judge_clients(ON + "policy_out: ACCEPT\n", "", [NAS], 3493).shut_out == (NAS,)
    # the policy of a host is that of the cluster
    assert firewall.judge_clients(ON, "[OPTIONS]\npolicy_in: ACCEPT\n", [NAS], 3493).shut_out == (NAS,)


@pytest.mark.parametrize(
    "rule",
    [
        "IN ACCEPT",
        "in ACCEPT -p tcp -dport 3493",
        "IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493 -log nolog # NUT",
        "IN ACCEPT --source 192.0.2.0/24 --proto 6 --dport nut",
        "  IN ACCEPT -source 198.51.100.1,192.0.2.5 -p tcp -dport 22,3490:3500\t",
        "IN ACCEPT -source 192.0.2.4-192.0.2.6 -log info#NUT",
    ],
)
def test_accept_rule_lets_client_in(rule: str) -> None:
    assert lets_in(rule)
    assert lets_in(rule.replace("ACCEPT", "DROP")) is False
    assert lets_in(f"|{rule.strip()}") is False
    assert lets_in(f"# {rule}") is False
    assert firewall.judge_clients(ON, f"{rule}\n", [NAS], 3493).shut_out == (NAS,)  # not in [RULES]


@pytest.mark.parametrize(
    "rule",
    [
        "OUT ACCEPT",
        "FORWARD ACCEPT",
        "IN ACCEPT -p udp -dport 3493",
        "IN ACCEPT -p tcp -dport 22,3494:4000",
        "IN ACCEPT -source 192.0.2.6",
        "IN ACCEPT -source 198.51.100.0/24,192.0.2.128/25",
        "IN ACCEPT -source 192.0.2.6-192.0.2.9",
        "IN ACCEPT -source 2001:db8::/32",
        "IN ACCEPT -source 2001:db8::1-2001:db8::9",
        "IN SSH(ACCEPT) -source 192.0.2.5",
        "IN ACCEPT -i vmbr0 -p udp",
    ],
)
def test_rule_for_other_clients_is_skipped(rule: str) -> None:
    assert firewall.judge_clients(ON, host(rule), [NAS], 3493) == FirewallVerdict("", (NAS,), ())
    for action in ("DROP", "REJECT"):
        assert firewall.judge_clients(ON, host(rule.replace("ACCEPT", action), "IN ACCEPT"), [NAS], 3493).shut_out == ()


@pytest.mark.parametrize(
    "rule",
    [
        "IN ACCEPT -source +sdn/vnet0-all -p tcp -dport 3493",
        "IN ACCEPT -source +vnet0-all -p tcp -dport 3493",
        "IN ACCEPT -i vmbr0 -p tcp -dport 3493",
        "IN ACCEPT -dest 192.0.2.1 -p tcp -dport 3493",
        "IN ACCEPT -p tcp -sport 1024:65535 -dport 3493",
        "IN ACCEPT -source 192.0.2",
        "IN ACCEPT -source 192.0.2.05",
    ],
)
def test_unclear_rule_lets_no_client_in_and_is_listed(rule: str) -> None:
    doubt = f"host.fw: {rule}"
    assert firewall.judge_clients(ON, host(rule), [NAS], 3493) == FirewallVerdict("", (NAS,), unclear_rules=(doubt,))
    # may it shut out, so nobody knows what comes of the rules after it
    drops = rule.replace("ACCEPT -", "DROP -")
    assert firewall.judge_clients(ON, host(drops, "IN ACCEPT"), [NAS], 3493).shut_out == (NAS,)
    # turned off, or ours before it: no doubt left
    assert firewall.judge_clients(ON, host("|" + rule), [NAS], 3493).unclear_rules == ()
    assert firewall.judge_clients(ON, host(*OURS, rule), [NAS], 3493) == FirewallVerdict("")


def test_unclear_group_lets_no_client_in_and_is_listed() -> None:
    cluster = f"{ON}[group ups]\nIN ACCEPT -source 192.0.2.5 -p tcp -dport 3493\n"
    seen = firewall.judge_clients(cluster, host("GROUP ups -i vmbr0"), [NAS], 3493)
    assert seen.unclear_rules == ("cluster.fw [group ups]: IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493",)
    assert seen.shut_out == (NAS,)


@pytest.mark.parametrize(
    "rule",
    [
        "IN ACCEPT -source nas",
        "IN ACCEPT -source dc/nas -p tcp -dport 3493",
        "IN ACCEPT -source 192.0.2.5/24",
        "IN ACCEPT -source 192.0.2.1-2001:db8::1",
        "IN ACCEPT -p tcp -dport ups",
        "IN ACCEPT -dport 3493",
        "IN ACCEPT -p all -dport 3493",
        "IN ACCEPT -p tcp dport 3493",
        "IN ACCEPT -p tcp -dport 3493,",
        "IN ACCEPT -p tcp -dport 3493,70000",
        "IN ACCEPT -p tcp -dport 3493,22:21",
        "IN ACCEPT -source 192.0.2.5,nas",
        "IN ACCEPT -source 192.0.2.5,2001:db8::5",
        "IN ACCEPT -source 192.0.2.5,192.0.2.7-192.0.2.9",
        "IN ACCEPT -source",
        "IN accept",
        "IN",
        "ACCEPT IN",
        "\x0b# nothing",
    ],
)
def test_ignored_rule_lets_no_client_in_and_is_listed(rule: str) -> None:
    seen = firewall.judge_clients(ON, host(rule), [NAS], 3493)
    assert (seen.shut_out, seen.unclear_rules) == ((NAS,), ())
    assert seen.ignored_rules[0].startswith(f"host.fw: {rule} (")
    # it shuts nobody out, either
    assert firewall.judge_clients(ON, host(rule.replace("ACCEPT -", "DROP -"), "IN ACCEPT"), [NAS], 3493).shut_out == ()
    assert firewall.judge_clients(ON, host("|" + rule), [NAS], 3493).ignored_rules == ()


def test_unclear_accept_does_not_hide_a_clear_one() -> None:
    assert firewall.judge_clients(
        ON, host("IN ACCEPT -i vmbr0", "IN ACCEPT -p tcp -dport 3493"), [NAS], 3493
    ) == FirewallVerdict("")


def test_macro_is_unclear_for_other_ports_than_nuts() -> None:
    assert firewall.judge_clients(ON, host("IN Ceph(ACCEPT)"), [NAS], 6789) == FirewallVerdict(
        "", (NAS,), unclear_rules=("host.fw: IN Ceph(ACCEPT)",)
    )
    assert firewall.judge_clients(ON, host("IN Ceph(DROP)", "IN ACCEPT"), [NAS], 6789).shut_out == (NAS,)


def test_host_rules_come_before_cluster_rules() -> None:
    drop = f"{ON}[RULES]\nIN DROP -p tcp -dport 3493\n[group g]\nIN ACCEPT\n"
    accept = f"{ON}[group g]\nIN DROP\n[RULES]\nIN ACCEPT -p tcp -dport 3493\n"
    assert firewall.judge_clients(drop, host("IN ACCEPT -source 192.0.2.5"), [NAS], 3493).shut_out == ()
    assert firewall.judge_clients(accept, host("IN DROP -source 192.0.2.5"), [NAS], 3493).shut_out == (NAS,)
    assert firewall.judge_clients(drop, "", [NAS], 3493).shut_out == (NAS,)
    assert firewall.judge_clients(accept, "", [NAS], 3493).shut_out == ()


def test_each_address_is_judged_separately() -> None:
    text = host("IN ACCEPT -source 192.0.2.5", "IN ACCEPT -source 2001:db8::/32", "IN ACCEPT -i vmbr0")
    seen = firewall.judge_clients(ON, text, ["192.0.2.6", NAS, "2001:db8::5"], 3493)
    assert seen == FirewallVerdict("", ("192.0.2.6",), unclear_rules=("host.fw: IN ACCEPT -i vmbr0",))


# Our rules


def test_one_rule_per_address() -> None:
    assert firewall.make_rules([NAS], 3493) == OURS
    assert firewall.make_rules([NAS, "2001:db8::5", NAS], 1234) == [
        "IN ACCEPT -source 192.0.2.5 -p tcp -dport 1234 # homelab.nut: a client of upsd",
        "IN ACCEPT -source 2001:db8::5 -p tcp -dport 1234 # homelab.nut: a client of upsd",
    ]
    assert "#" not in firewall.MARK  # Proxmox VE's two programs cut a comment off at different ones
    for port in (0, -1, 65536):
        with pytest.raises(FirewallError, match=f"port must be .* not {port}"):
            firewall.make_rules([], port)


def test_our_rules_let_clients_in() -> None:
    places = [NAS, "2001:db8::5"]
    text = firewall.with_rules(host("IN DROP"), firewall.make_rules(places, 1234))
    assert firewall.judge_clients(ON, text, places, 1234) == FirewallVerdict("")
    assert firewall.judge_clients(ON, text, [NAS], 3493).shut_out == (NAS,)


RULE = OURS[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"[RULES]\n\n{RULE}\n"),
        ("[OPTIONS]\n\nenable: 1\n\n", f"[OPTIONS]\n\nenable: 1\n\n[RULES]\n\n{RULE}\n"),
        ("[OPTIONS]\nenable: 1\n", f"[OPTIONS]\nenable: 1\n\n[RULES]\n\n{RULE}\n"),
        ("[OPTIONS]\nenable: 1", f"[OPTIONS]\nenable: 1\n\n[RULES]\n\n{RULE}\n"),
        ("[RULES]", f"[RULES]\n{RULE}\n"),
        ("[RULES]\n", f"[RULES]\n{RULE}\n"),
        ("[RULES]\n\n", f"[RULES]\n\n{RULE}\n"),
        ("[RULES]\n\nIN DROP\n\n", f"[RULES]\n\n{RULE}\nIN DROP\n\n"),
        ("[RULES]\n# mine\nIN DROP", f"[RULES]\n{RULE}\n# mine\nIN DROP"),
        ("[RULES]\n[group web]\nIN DROP\n", f"[RULES]\n{RULE}\n[group web]\nIN DROP\n"),
        (f"[RULES]\n[group web]\n{RULE}\nIN DROP\n", f"[RULES]\n{RULE}\n[group web]\nIN DROP\n"),
        (" [rules]\t\nIN DROP\n[RULES]\n", f" [rules]\t\n{RULE}\nIN DROP\n[RULES]\n"),
        ("[RULES]\n[OPTIONS]\n", f"[RULES]\n{RULE}\n[OPTIONS]\n"),
        # pve-firewall takes this for no header
        ("[RULES]\r\nIN DROP\r\n", f"[RULES]\r\nIN DROP\r\n\n[RULES]\n\n{RULE}\n"),
        ("# [RULES]\n", f"# [RULES]\n\n[RULES]\n\n{RULE}\n"),
        # moved down, changed, turned off, of another port: put right
        (f"[RULES]\nIN DROP\n{RULE}\n", f"[RULES]\n{RULE}\nIN DROP\n"),
        (f"[RULES]\n|{RULE}\nIN DROP\n", f"[RULES]\n{RULE}\nIN DROP\n"),
        (f"[RULES]\n{RULE.replace('.5', '.6')}, mine\nIN DROP\n", f"[RULES]\n{RULE}\nIN DROP\n"),
        # not ours: turned into comment, not among the rules, another comment
        (f"[RULES]\n# {RULE}\n", f"[RULES]\n{RULE}\n# {RULE}\n"),
        ("[RULES]\n# homelab.nut: a client of upsd\n", f"[RULES]\n{RULE}\n# homelab.nut: a client of upsd\n"),
        (f"{RULE}\n[RULES]\n", f"{RULE}\n[RULES]\n{RULE}\n"),
        ("[RULES]\nIN ACCEPT # not homelab.nut: a\n", f"[RULES]\n{RULE}\nIN ACCEPT # not homelab.nut: a\n"),
    ],
)
def test_rules_go_to_the_top_of_the_rules_section(before: str, after: str) -> None:
    assert firewall.with_rules(before, OURS) == after
    assert firewall.with_rules(after, OURS) == after


def test_our_rules_are_removed() -> None:
    assert firewall.without_rules(f"[RULES]\n{RULE}\nIN DROP\n[RULES]\n|{RULE} too\n") == "[RULES]\nIN DROP\n[RULES]\n"
    assert firewall.with_rules(f"[RULES]\n{RULE}\nIN DROP\n", []) == "[RULES]\nIN DROP\n"
    assert firewall.with_rules("[OPTIONS]\n", []) == "[OPTIONS]\n"


def saved(host_fw: str) -> str:
    """Write a host.fw anew as Proxmox VE's web interface does: without lines of comment, with blank lines of its own."""
    sections: dict[str, list[str]] = {"[OPTIONS]": [], "[RULES]": []}
    lines: list[str] = []
    for line in host_fw.split("\n"):
        if line.upper() in sections:
            lines = sections[line.upper()]
        elif line and not line.startswith("#"):
            lines.append(line)
    return "".join("\n".join([name, "", *those, "", ""]) for name, those in sections.items() if those)


def test_rules_survive_the_web_interface() -> None:
    mine = "[OPTIONS]\nenable: 1\n[RULES]\n# mine\nIN SSH(ACCEPT)\n"
    kept = saved(firewall.with_rules(mine, OURS))
    assert kept == f"[OPTIONS]\n\nenable: 1\n\n[RULES]\n\n{RULE}\nIN SSH(ACCEPT)\n\n"
    assert firewall.with_rules(kept, OURS) == kept
    assert firewall.without_rules(kept) == saved(mine)


TEXT = st.lists(
    st.sampled_from(
        ["[RULES]", "[rules] ", "[OPTIONS]", "[group x]", "", " ", "\t", "# [RULES]", "enable: 1", "IN DROP", "\r", "\u2028",
         "|IN ACCEPT # \x85", "[RULES]\r", "[", "#", RULE, f"|{RULE}", f"# {RULE}", RULE.replace("3493", "1"), "\udcff"],
    )
    | st.text(),
).map("\n".join)  # fmt: skip
RULES = st.lists(st.ip_addresses().map(str), max_size=3).map(lambda found: firewall.make_rules(found, 3493))


@given(TEXT, RULES)
def test_adding_rules_twice_changes_nothing(text: str, ours: list[str]) -> None:
    once = firewall.with_rules(text, ours)
    assert firewall.with_rules(once, ours) == once
    if ours:
        assert firewall.with_rules(firewall.with_rules(text, OURS), ours) == once


@given(TEXT, RULES)
def test_other_lines_survive(text: str, ours: list[str]) -> None:
    without = firewall.without_rules(text)
    left = firewall.without_rules(firewall.with_rules(text, ours))
    if not ours:
        assert left == without
    elif any(line.strip(" \t").lower() == "[rules]" for line in text.split("\n")):
        assert left in (without, without + "\n")  # the end of a last line that had none
    else:
        assert left.startswith(without)
        assert left[len(without) :].strip("\n") == "[RULES]"
    gone = [line for line in text.split("\n") if firewall.MARK not in line]
    assert [line for line in without.split("\n") if firewall.MARK not in line] == gone


@given(TEXT, RULES)
def test_our_rules_are_the_first_rules(text: str, ours: list[str]) -> None:
    found = []
    section = ""
    for line in firewall.with_rules(text, ours).split("\n"):
        told = line.strip(" \t")
        section = told.lower() if told.startswith("[") else section
        if section == "[rules]" and told and told[0] not in "#[":
            found.append(line)
    assert found[: len(ours)] == ours
    assert not {RULE, f"|{RULE}", RULE.replace("3493", "1")} & set(found[len(ours) :])


@given(st.text(), st.text())
def test_any_text_is_judged_without_error(cluster_fw: str, rule: str) -> None:
    seen = firewall.judge_clients(f"{ON}[RULES]\n{cluster_fw}", host(rule), [NAS], 3493)
    assert seen.shut_out in ((), (NAS,))


# What is told


def test_hint_lists_missing_rules() -> None:
    clients = {"nas": ("192.0.2.5", "2001:db8::5"), "192.0.2.6": ("192.0.2.6",), "media": ("192.0.2.7",)}
    seen = FirewallVerdict("", ("192.0.2.5", "192.0.2.6"), unclear_rules=("cluster.fw: GROUP g",))
    why, where, *rules, doubts = firewall.describe_missing_rules(seen, clients, 1234, Path("/etc/pve/local/host.fw"))
    assert "to port 1234: nas (192.0.2.5), 192.0.2.6. " in why
    assert "/etc/pve/local/host.fw" in where
    assert rules == [
        "IN ACCEPT -source 192.0.2.5 -p tcp -dport 1234",
        "IN ACCEPT -source 192.0.2.6 -p tcp -dport 1234",
    ]
    assert doubts.endswith(": cluster.fw: GROUP g")


def test_following_the_hint_silences_the_hint() -> None:
    seen = firewall.judge_clients(ON, host("IN ACCEPT -i vmbr0"), [NAS], 3493)
    _why, _where, rule, _doubts = firewall.describe_missing_rules(seen, {"nas": (NAS,)}, 3493, Path("host.fw"))
    followed = host(rule, "IN ACCEPT -i vmbr0")
    assert (
        firewall.describe_missing_rules(
            firewall.judge_clients(ON, followed, [NAS], 3493), {"nas": (NAS,)}, 3493, Path("host.fw")
        )
        == []
    )
    # what somebody wrote by hand is not ours to remove
    assert firewall.without_rules(followed) == followed


# The files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "nodes/pve").mkdir(parents=True)
    (tmp_path / "local").symlink_to("nodes/pve")
    return tmp_path


def test_files_are_read(root: Path) -> None:
    assert firewall.read_files(root) == ("", "")
    (root / "firewall").mkdir()
    (root / "firewall/cluster.fw").write_text(ON)
    (root / "local/host.fw").write_bytes(b"[RULES]\r\n# \xff\n")
    assert firewall.read_files(root) == (ON, "[RULES]\r\n# \udcff\n")


def test_host_without_proxmox_ve_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FirewallError, match=f"there is no {tmp_path}/local"):
        firewall.read_files(tmp_path)


def test_unreadable_file_is_named(root: Path) -> None:
    (root / "nodes/pve/host.fw").mkdir()
    with pytest.raises(FirewallError, match=r"can't read .*local/host\.fw: Is a directory"):
        firewall.read_files(root)


def test_unreachable_directory_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_dir(path: Path) -> bool:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(Path, "is_dir", is_dir)
    with pytest.raises(FirewallError, match=r"can't read .*local: Transport endpoint is not connected"):
        firewall.read_files(root)


def test_host_fw_is_replaced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    # Proxmox VE's file system
    for name in ("chmod", "chown", "fchmod", "fchown", "link"):
        monkeypatch.setattr(f"os.{name}", refused)
    path = root / "nodes/pve/host.fw"
    path.write_text("old")
    (path.parent / "host.fw.tmp.4194305").write_text("of a run that was killed: no process has this number")
    (path.parent / "host.fw.tmp.1").write_text("of one that is at work")
    with path.open() as reader:
        firewall.write_host_fw(root, "[RULES]\r\n# \udcff\n")
        assert reader.read() == "old"  # replaced, not written over
    assert path.read_bytes() == b"[RULES]\r\n# \xff\n"
    assert sorted(left.name for left in path.parent.iterdir()) == ["host.fw", "host.fw.tmp.1"]


@pytest.mark.parametrize("call", ["write_bytes", "replace"])
def test_refused_write_leaves_host_fw_unchanged(root: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refused(path: Path, argument: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = root / "nodes/pve/host.fw"
    path.write_text("old")
    monkeypatch.setattr(Path, call, refused)
    with pytest.raises(FirewallError, match=r"can't write .*local/host\.fw: Permission denied.* quorum"):
        firewall.write_host_fw(root, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["host.fw"]
