#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: truenas_ups
short_description: Make TrueNAS a secondary of a NUT server
version_added: 0.1.0
author:
  - The homelab.nut contributors (@homelab-nut)
description:
  - Configures the UPS service of TrueNAS, so that TrueNAS shuts down when the battery of the UPS runs low.
  - Compares the settings first and sends only those that differ. When nothing differs, it only calls methods that read.
  - TrueNAS 25.04 and newer have a JSON-RPC API over a WebSocket. For it, run this module where C(websocket-client) is
    installed, usually with C(delegate_to=localhost).
  - For older releases (SCALE from 22.12 on, CORE 13) the module calls C(midclt). For that, run it on TrueNAS itself, over SSH
    as root. This works with newer releases, too.
  - TrueNAS reports its UPS service as running even with a wrong password or an unknown UPS. So check afterwards that TrueNAS
    is in the list of clients on the NUT server.
  - A run succeeds only if the same process of the service is seen twice, some seconds apart. If TrueNAS reports a failure
    although it has saved the settings, or although the service runs, the module warns with the text of TrueNAS.
requirements:
  - websocket-client >= 1.3 where the module runs, for O(transport=jsonrpc)
  - Python >= 3.9 on TrueNAS, for O(transport=midclt); all releases named above have it
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: posix
options:
  transport:
    description:
      - How to connect to TrueNAS.
      - V(jsonrpc) logs in to the API over the network, which TrueNAS has from 25.04 on. It needs O(url), O(username), and
        O(password) or O(api_key).
      - V(midclt) calls TrueNAS's own command C(midclt), so the module must run on TrueNAS, as root (C(become=true)). It needs
        no login, and ignores O(url), O(username), O(password), O(api_key), O(otp), O(validate_certs), O(ca_path) and
        O(fingerprint). The password of the UPS is never among the arguments of a process.
      - V(auto) is V(jsonrpc) if O(url) is set, else V(midclt). If O(url) has no JSON-RPC API, as on an older TrueNAS, and
        there is a C(midclt) where the module runs, it falls back to that and warns. At that point nothing was sent and no
        login was tried. After any other failure it does not fall back.
    type: str
    choices: [auto, jsonrpc, midclt]
    default: auto
  url:
    description:
      - The address of TrueNAS. A host name, C(HOST:PORT), C(https://HOST[:PORT]) or C(wss://HOST[:PORT]/api/current).
      - The module always uses the API at C(/api/current). It does not follow redirects and does not use proxies.
      - For an HA pair, use the address that the pair shares. The standby node accepts no logins and names the active node. If
        the module reaches the standby node, it continues with the active node, once, and warns. The certificate of that node is
        verified in the same way, and from C(wss) the module never continues over C(ws).
      - Required for O(transport=jsonrpc).
    type: str
  username:
    description:
      - The user to log in as, with O(password) or with an API key of this user. Required if O(url) is used.
      - The user's group needs at least the roles C(SYSTEM_GENERAL_WRITE), C(SERVICE_WRITE) and C(SERVICE_READ).
    type: str
  password:
    description:
      - The password of O(username).
      - Set exactly one of O(password) and O(api_key).
    type: str
  api_key:
    description:
      - An API key of O(username). TrueNAS shows it only once, when it is created.
      - Rejected with plain C(ws) or C(http), because TrueNAS revokes a key that is sent without TLS.
      - TrueNAS 26 and newer do not get the key. Both sides prove that they know it (SCRAM), bound to the certificate. Older
        releases only take the key itself, which is therefore sent only if the certificate is verified.
    type: str
  otp:
    description:
      - The one-time code, for a user with two-factor authentication who logs in with O(password).
    type: str
  validate_certs:
    description:
      - Whether to verify the certificate of TrueNAS. Verification fails for the one that TrueNAS creates itself; see O(fingerprint).
      - With V(false) and without O(fingerprint), a machine on the network path can pose as TrueNAS and learn the password. The
        module then warns. An API key is not sent over such a connection, so O(api_key) then needs TrueNAS 26 or newer, and a
        certificate with an RSA or ECDSA signature, to which the login can be bound.
    type: bool
    default: true
  ca_path:
    description:
      - A file or a directory with the certificates of the CAs to trust instead of the system's.
    type: path
  fingerprint:
    description:
      - The SHA-256 fingerprint of the certificate of TrueNAS, in hex, with or without colons.
      - If set, only this certificate is accepted, regardless of its signature and of the names in it.
      - When the verification of a certificate fails, the error shows its fingerprint. Compare it with the one that TrueNAS
        shows before you copy it.
    type: str
  timeout:
    description:
      - The time limit in seconds for opening the connection, and for each answer. Starting or stopping the service may
        take 120 s more. A whole run takes at most ten times this limit plus 240 s.
      - With C(midclt), the time limit in seconds for each call. A process that takes 30 s more is killed.
      - If a call that changes something exceeds the limit, the module fails and reports C(changed), because TrueNAS may or may
        not have carried it out.
    type: int
    default: 30
  state:
    description:
      - V(present) applies the settings, enables the service on boot and starts it.
      - V(absent) stops the service and disables it on boot. On a secondary it also removes the login, by resetting O(monuser)
        and O(monpwd) to the values of a new TrueNAS. The mode returns to V(MASTER) only if a driver and a port are set, because
        TrueNAS rejects that mode without them. All other settings keep their values.
    type: str
    choices: [present, absent]
    default: present
  restart:
    description:
      - Whether to restart a running service even if nothing else changes. Its C(upsmon) does not repeat a login that was refused.
    type: bool
    default: false
    version_added: 0.2.0
  mode:
    description:
      - V(SLAVE) is a secondary, which monitors a UPS on another host's NUT server. V(MASTER) is a TrueNAS with its own UPS, and
        needs O(driver) and O(port).
    type: str
    choices: [SLAVE, MASTER]
    default: SLAVE
  identifier:
    description:
      - The name of the UPS on the NUT server.
    type: str
    default: ups
  remotehost:
    description:
      - The NUT server, as a host name, an IPv4 address, or an IPv6 address in brackets, such as V([fd00::5]).
      - Required for mode V(SLAVE), unless it is already set on TrueNAS. If unset, it is not changed.
    type: str
  remoteport:
    description:
      - The port of the NUT server.
    type: int
    default: 3493
  monuser:
    description:
      - The user to log in as on the NUT server. If unset, it is not changed.
    type: str
  monpwd:
    description:
      - The password of O(monuser). If unset, it is not changed.
      - Passwords that TrueNAS or NUT would corrupt are rejected, such as those with a space, C(#), C(=), a backslash or a
        character outside ASCII. Safe characters are letters, digits, C(.), C(_) and C(-).
      - The module warns if TrueNAS 26 and newer can't use O(remotehost), O(monuser) or O(monpwd) for their own graphs of the UPS.
    type: str
  shutdown:
    description:
      - V(LOWBATT) shuts down when the battery is low, V(BATT) after O(shutdowntimer) seconds on battery.
      - With either value, TrueNAS also shuts down when the primary orders it (FSD).
      - TrueNAS's own default is V(BATT) with 30 seconds.
    type: str
    choices: [LOWBATT, BATT]
    default: LOWBATT
  shutdowntimer:
    description:
      - Seconds on battery before a shutdown with O(shutdown=BATT). If unset, it is not changed.
    type: int
  shutdowncmd:
    description:
      - The command that shuts TrueNAS down. Empty means TrueNAS's own. If unset, it is not changed.
    type: str
  hostsync:
    description:
      - On a secondary, how many seconds to wait for the primary's shutdown order when the battery is low, before it shuts down
        on its own. If unset, it is not changed.
    type: int
  nocommwarntime:
    description:
      - Seconds between two warnings that the UPS can't be reached. V(0) means NUT's own default. If unset, it is not changed.
    type: int
  powerdown:
    description:
      - Whether TrueNAS switches the UPS off after its shutdown. Only for mode V(MASTER).
    type: bool
    default: false
  rmonitor:
    description:
      - Whether NUT on TrueNAS listens on the network. Only for mode V(MASTER). If unset, it is not changed.
    type: bool
  driver:
    description:
      - The driver of TrueNAS's own UPS, as the API method C(ups.driver_choices) names it, with the model, for example
        V(usbhid-ups$Back-UPS ES 700G). If unset, it is not changed.
    type: str
  port:
    description:
      - The port of TrueNAS's own UPS, for example V(auto). If unset, it is not changed.
    type: str
  options:
    description:
      - Additional lines for the UPS's section in C(ups.conf). If unset, they are not changed.
      - Treated as a secret, because drivers can have passwords there.
    type: str
  optionsupsd:
    description:
      - Additional lines for C(upsd.conf). If unset, they are not changed. Treated as a secret.
    type: str
  description:
    description:
      - A description of the UPS, one line without double quotes and backslashes. If unset, it is not changed.
    type: str
  extrausers:
    description:
      - Additional lines for C(upsd.users). If unset, they are not changed. Treated as a secret.
    type: str
notes:
  - A run logs in exactly once and never retries, because TrueNAS counts failed logins. The only second login is the one to
    the active node of a pair, after the standby node has refused the first.
  - If new settings were saved but the service then does not run, the module fails and reports C(changed). The next run
    starts the service.
"""

EXAMPLES = r"""
- name: Make TrueNAS a secondary of the NUT server on the Proxmox VE host
  homelab.nut.truenas_ups:
    url: truenas.lan
    username: nut
    api_key: "{{ vault_truenas_api_key }}"
    fingerprint: "{{ truenas_fingerprint }}"
    remotehost: pve.lan
    monuser: truenas
    monpwd: "{{ vault_nut_truenas_password }}"
  delegate_to: localhost

- name: Shut down after five minutes on battery; log in with a password, and trust a CA of your own
  homelab.nut.truenas_ups:
    url: https://truenas.lan:8443
    username: truenas_admin
    password: "{{ vault_truenas_password }}"
    ca_path: /etc/ssl/certs/house-ca.pem
    remotehost: 192.0.2.10
    monuser: truenas
    monpwd: "{{ vault_nut_truenas_password }}"
    shutdown: BATT
    shutdowntimer: 300
  delegate_to: localhost

- name: Configure TrueNAS CORE, or SCALE before 25.04, over SSH (runs on TrueNAS, so without delegate_to)
  homelab.nut.truenas_ups:
    transport: midclt
    remotehost: pve.lan
    monuser: truenas
    monpwd: "{{ vault_nut_truenas_password }}"
  become: true

- name: Make TrueNAS the primary of the UPS on its USB, and let a Proxmox VE host log in as a secondary
  homelab.nut.truenas_ups:
    url: truenas.lan
    username: nut
    api_key: "{{ vault_truenas_api_key }}"
    fingerprint: "{{ truenas_fingerprint }}"
    mode: MASTER
    driver: usbhid-ups$Back-UPS ES 700G
    port: auto
    identifier: ups
    rmonitor: true
    powerdown: true
    monuser: truenas
    monpwd: "{{ vault_nut_truenas_password }}"
    extrausers: |
      [pve]
        password = {{ vault_nut_pve_password }}
        upsmon secondary
  delegate_to: localhost

- name: Disconnect TrueNAS from the NUT server
  homelab.nut.truenas_ups:
    url: truenas.lan
    username: nut
    api_key: "{{ vault_truenas_api_key }}"
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
transport:
  description: The transport that was used, V(jsonrpc) or V(midclt).
  returned: success
  type: str
  sample: jsonrpc
host:
  description:
    - The host name or address in O(url), an IPv6 address without its brackets. For a pair, the node that was used.
    - With C(midclt), the machine's own host name.
  returned: success
  type: str
  sample: truenas.lan
reason:
  description:
    - V(no_jsonrpc) if O(url) leads to a web server without a JSON-RPC API. Then TrueNAS is older than 25.04 (or this is not
      TrueNAS), no login was tried, and a play may continue with O(transport=midclt) over SSH.
    - Absent for any other failure.
  returned: failure
  type: str
  sample: no_jsonrpc
actions:
  description: What was done, in this order. In check mode, what would be done. On failure, what was done before it.
  returned: always
  type: list
  elements: str
  sample:
    - set mode, remotehost, monuser, monpwd, shutdown
    - enabled the UPS service on boot
    - started the UPS service
settings:
  description:
    - The settings of the UPS service after the run, with the API's names. In check mode, the settings that a run would lead to.
    - C(monpwd), C(extrausers), C(options) and C(optionsupsd) only show whether they are empty.
  returned: success
  type: dict
  contains:
    mode:
      description: V(MASTER) or V(SLAVE).
      type: str
      sample: SLAVE
    complete_identifier:
      description: The UPS that TrueNAS monitors.
      type: str
      sample: ups@192.0.2.10:3493
    monpwd:
      description: Never the password.
      type: str
      sample: (hidden)
service:
  description: The UPS service after the run. In check mode, the state that a run would lead to.
  returned: success
  type: dict
  contains:
    enable:
      description: Whether it starts on boot.
      type: bool
      sample: true
    state:
      description: V(RUNNING) with O(state=present), V(STOPPED) with O(state=absent). In any other state the module fails.
      type: str
      sample: RUNNING
version:
  description: The release of TrueNAS as it names itself, with a prefix; null if it could not be read.
  returned: success
  type: str
  sample: TrueNAS-25.10.7
"""

from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.plugins.module_utils._truenas.module import Transports, run_module


def main(transports: Transports | None = None) -> None:
    """Run the module. Tests pass their own transports."""
    module = Module(
        argument_spec={
            "transport": {"type": "str", "choices": ["auto", "jsonrpc", "midclt"], "default": "auto"},
            "url": {"type": "str"},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "api_key": {"type": "str", "no_log": True},
            "otp": {"type": "str", "no_log": True},
            "validate_certs": {"type": "bool", "default": True},
            "ca_path": {"type": "path"},
            "fingerprint": {"type": "str"},
            "timeout": {"type": "int", "default": 30},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "restart": {"type": "bool", "default": False},
            "mode": {"type": "str", "choices": ["SLAVE", "MASTER"], "default": "SLAVE"},
            "identifier": {"type": "str", "default": "ups"},
            "remotehost": {"type": "str"},
            "remoteport": {"type": "int", "default": 3493},
            "monuser": {"type": "str"},
            "monpwd": {"type": "str", "no_log": True},
            "shutdown": {"type": "str", "choices": ["LOWBATT", "BATT"], "default": "LOWBATT"},
            "shutdowntimer": {"type": "int"},
            "shutdowncmd": {"type": "str"},
            "hostsync": {"type": "int"},
            "nocommwarntime": {"type": "int"},
            "powerdown": {"type": "bool", "default": False},
            "rmonitor": {"type": "bool"},
            "driver": {"type": "str"},
            "port": {"type": "str"},
            "options": {"type": "str", "no_log": True},
            "optionsupsd": {"type": "str", "no_log": True},
            "description": {"type": "str"},
            "extrausers": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    run_module(module, transports)


if __name__ == "__main__":
    main()
