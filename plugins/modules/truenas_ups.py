#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: truenas_ups
short_description: Make TrueNAS a client of a NUT server
version_added: 0.1.0
author:
  - The homelab.nut contributors (@homelab-nut)
description:
  - Sets up the UPS service of TrueNAS, so that it shuts itself down when the UPS runs low.
  - Compares first and sends only what differs. When nothing differs, nothing is called but methods that read.
  - For TrueNAS 25.04 and newer speaks the JSON-RPC API over a WebSocket; run it where C(websocket-client) is installed,
    usually with C(delegate_to=localhost).
  - For older ones (SCALE from 22.12 on, CORE 13), and for newer ones too, runs C(midclt) on TrueNAS itself; run it there,
    over SSH and as root.
  - A UPS service that runs proves little, for TrueNAS reports it running with a wrong password or an unknown UPS too.
    Look for TrueNAS in the list of clients on the NUT server afterwards.
requirements:
  - websocket-client >= 1.3 where the module runs, for O(transport=jsonrpc)
  - Python >= 3.9 on TrueNAS, for O(transport=midclt); each of the releases named above has it
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
      - How to talk to TrueNAS.
      - V(jsonrpc) logs in to its API over the network. TrueNAS has it from 25.04 on. It needs O(url), O(username), and
        O(password) or O(api_key).
      - V(midclt) runs TrueNAS's own program C(midclt), so the module must run on TrueNAS, as root (C(become=true)). It needs
        no login. O(url), O(username), O(password), O(api_key), O(otp), O(validate_certs), O(ca_path) and O(fingerprint) are
        ignored then. The password of the UPS never stands among the arguments of a process.
      - V(auto) is V(jsonrpc) if O(url) is given, and else V(midclt). If there is no JSON-RPC API at O(url), which is what
        an older TrueNAS looks like, nothing was sent and nobody has logged in; then, if there is a C(midclt) where the
        module runs, it goes on with that one and warns. It goes no other way after any other failure.
    type: str
    choices: [auto, jsonrpc, midclt]
    default: auto
  url:
    description:
      - Where TrueNAS is. A host name, C(HOST:PORT), C(https://HOST[:PORT]) or C(wss://HOST[:PORT]/api/current).
      - The API is always spoken at C(/api/current). Redirects of the web server are not followed and proxies are not used.
      - For a pair of high availability give the address that the pair shares. Where the standby node answers, which lets
        nobody in and names the other one, the module goes on to that one, once, and warns. With O(fingerprint) or O(ca_path)
        that one must pass too, and from C(wss) it never goes to C(ws).
      - Needed for O(transport=jsonrpc).
    type: str
  username:
    description:
      - The user to log in as, with O(password) or with an API key of this user. Needed if O(url) is used.
      - The least privilege is a group with the roles C(SYSTEM_GENERAL_WRITE), C(SERVICE_WRITE) and C(SERVICE_READ).
    type: str
  password:
    description:
      - The password of O(username).
      - Give exactly one of O(password) and O(api_key).
    type: str
  api_key:
    description:
      - An API key of O(username), as TrueNAS shows it once when it is made.
      - Refused over plain C(ws) or C(http), because TrueNAS revokes a key at once that comes without TLS.
    type: str
  otp:
    description:
      - The one-time code, for a user with two-factor authentication who logs in with O(password).
    type: str
  validate_certs:
    description:
      - Whether the certificate of TrueNAS must be valid. The one it makes itself is not; see O(fingerprint).
      - V(false) without O(fingerprint) lets whoever stands between pass for TrueNAS and learn the login. The module warns then.
    type: bool
    default: true
  ca_path:
    description:
      - A file or a directory with the certificates of the CAs to trust, instead of those of the system.
    type: path
  fingerprint:
    description:
      - The SHA-256 fingerprint of the certificate of TrueNAS, in hex, with or without colons.
      - Only this one certificate is accepted then, whoever signed it and whatever name it is made out to.
      - When a certificate does not pass, the error shows its fingerprint. Compare it with what TrueNAS shows
        before you copy it.
    type: str
  timeout:
    description:
      - How many seconds a connection may take until it is open, and how many each answer may take, whatever comes meanwhile.
        Starting and stopping the service gets 120 more. A run as a whole takes at most ten times as long, and 240 more.
      - With C(midclt), how many seconds each call may take; a process that takes 30 more is ended. Whether TrueNAS
        carried out a call that was given up is not known, so after a change the module fails with C(changed).
    type: int
    default: 30
  state:
    description:
      - V(present) applies the settings, enables the service on boot and starts it.
      - V(absent) stops the service and disables it on boot. From a secondary it also removes the login, by setting
        O(monuser) and O(monpwd) to what a new TrueNAS has, and it goes back to mode V(MASTER) if a driver and a port
        are set, for TrueNAS refuses that mode without them. All other settings stay.
    type: str
    choices: [present, absent]
    default: present
  mode:
    description:
      - V(SLAVE) is a secondary, which listens to another host's NUT server. V(MASTER) has a UPS of its own and needs
        O(driver) and O(port).
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
      - TrueNAS needs it for mode V(SLAVE). Unset leaves it as it is.
    type: str
  remoteport:
    description:
      - The port of the NUT server.
    type: int
    default: 3493
  monuser:
    description:
      - The user on the NUT server to log in as. Unset leaves it as it is.
    type: str
  monpwd:
    description:
      - The password of O(monuser). Unset leaves it as it is.
      - It is refused if it holds what TrueNAS or NUT trips over, such as a blank, C(#), C(=), a backslash or a letter
        outside ASCII. Safe characters are letters, digits, C(.), C(_) and C(-).
    type: str
  shutdown:
    description:
      - V(LOWBATT) shuts down when the battery is low, V(BATT) after O(shutdowntimer) seconds on battery.
      - Whatever it is, TrueNAS shuts down when the primary says so (FSD).
      - TrueNAS's own default is V(BATT) with 30 seconds.
    type: str
    choices: [LOWBATT, BATT]
    default: LOWBATT
  shutdowntimer:
    description:
      - Seconds on battery before a shutdown with O(shutdown=BATT). Unset leaves it as it is.
    type: int
  shutdowncmd:
    description:
      - The command that shuts TrueNAS down. Empty for TrueNAS's own. Unset leaves it as it is.
    type: str
  hostsync:
    description:
      - For a secondary, how many seconds a low battery may last without the primary's shutdown order. Unset leaves
        it as it is.
    type: int
  nocommwarntime:
    description:
      - Seconds without contact to the UPS before TrueNAS warns again. V(0) for NUT's own default. Unset leaves it as
        it is.
    type: int
  powerdown:
    description:
      - Whether TrueNAS switches the UPS off after its shutdown. Only for a UPS of its own.
    type: bool
    default: false
  rmonitor:
    description:
      - Whether NUT on TrueNAS listens on the network. Only for mode V(MASTER). Unset leaves it as it is.
    type: bool
  driver:
    description:
      - The driver of a UPS of TrueNAS's own, as the API method C(ups.driver_choices) names it. Unset leaves it as it
        is.
    type: str
  port:
    description:
      - The port of a UPS of TrueNAS's own, for example V(auto). Unset leaves it as it is.
    type: str
  options:
    description:
      - Further lines for the section of the UPS in C(ups.conf). Unset leaves them as they are.
      - Handled as a secret, for drivers take passwords there.
    type: str
  optionsupsd:
    description:
      - Further lines for C(upsd.conf). Unset leaves them as they are. Handled as a secret.
    type: str
  description:
    description:
      - A description of the UPS, one line without double quotes and backslashes. Unset leaves it as it is.
    type: str
  extrausers:
    description:
      - Further lines for C(upsd.users). Unset leaves them as they are. Handled as a secret.
    type: str
notes:
  - One run logs in exactly once and never again by itself, because TrueNAS counts failed logins. The only second login
    is the one on the other node of a pair, where the first node takes none.
  - If new settings were saved and the service then fails to start, the module fails, says so and reports C(changed).
    The next run starts the service again.
"""

EXAMPLES = r"""
- name: TrueNAS follows the NUT server on the Proxmox VE host
  homelab.nut.truenas_ups:
    url: truenas.lan
    username: nut
    api_key: "{{ vault_truenas_api_key }}"
    fingerprint: "{{ truenas_fingerprint }}"
    remotehost: pve.lan
    monuser: truenas
    monpwd: "{{ vault_nut_truenas_password }}"
  delegate_to: localhost

- name: Shut down after five minutes on battery, with a password and a CA of the house
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

- name: TrueNAS CORE, or SCALE before 25.04, over SSH; on TrueNAS itself, so without delegate_to
  homelab.nut.truenas_ups:
    transport: midclt
    remotehost: pve.lan
    monuser: truenas
    monpwd: "{{ vault_nut_truenas_password }}"
  become: true

- name: TrueNAS is no longer a client of the NUT server
  homelab.nut.truenas_ups:
    url: truenas.lan
    username: nut
    api_key: "{{ vault_truenas_api_key }}"
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
transport:
  description: How TrueNAS was spoken to, V(jsonrpc) or V(midclt).
  returned: success
  type: str
  sample: jsonrpc
host:
  description:
    - The host name or address in O(url), an IPv6 address without its brackets. Of a pair the node that was spoken to.
    - With C(midclt) the name that the machine has for itself.
  returned: success
  type: str
  sample: truenas.lan
reason:
  description:
    - V(no_jsonrpc) if there is a web server at O(url), but no JSON-RPC API. Then TrueNAS is older than 25.04 (or this is no
      TrueNAS), nothing was sent, and a play may go on with O(transport=midclt) over SSH.
    - Not there for any other failure.
  returned: failure
  type: str
  sample: no_jsonrpc
actions:
  description: What was done, in words, in this order. In check mode what would be done. On failure what had been done.
  returned: always
  type: list
  elements: str
  sample:
    - set mode, remotehost, monuser, monpwd, shutdown
    - enabled the UPS service on boot
    - started the UPS service
settings:
  description:
    - The settings of the UPS service afterwards, as the API names them. In check mode what they would be.
    - Of C(monpwd), C(extrausers), C(options) and C(optionsupsd) only whether they are empty.
  returned: success
  type: dict
  contains:
    mode:
      description: V(MASTER) or V(SLAVE).
      type: str
      sample: SLAVE
    complete_identifier:
      description: The UPS that TrueNAS watches.
      type: str
      sample: ups@192.0.2.10:3493
    monpwd:
      description: Never the password.
      type: str
      sample: (hidden)
service:
  description: The UPS service afterwards. In check mode what it would be.
  returned: success
  type: dict
  contains:
    enable:
      description: Whether it starts on boot.
      type: bool
      sample: true
    state:
      description: V(RUNNING), V(STOPPED) or V(UNKNOWN).
      type: str
      sample: RUNNING
version:
  description: The release of TrueNAS, or null where it does not tell.
  returned: success
  type: str
  sample: 25.10.1
"""

from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.plugins.module_utils._truenas.module import Transports, run_module


def main(transports: Transports | None = None) -> None:
    """Run the module. A test gives what it reaches out with."""
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
