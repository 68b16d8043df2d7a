#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.config."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config
short_description: Install and activate NUT's configuration files on a host, as a checked set
version_added: 0.1.0
description:
  - Installs a set of NUT's files on a host and makes NUT use them, with as few restarts as possible.
  - First it checks that every UPS is plainly on mains. A restart while a UPS is on battery can shut down every host
    that it powers, so in that case nothing is changed, unless O(force) is set.
  - Then it checks the files as a set, and lets the host's own NUT check them in a scratch directory. A set that passes is
    installed completely or not at all, even if the run is killed or the power fails. The next run then completes the
    set or undoes it.
  - It restarts or reloads only the daemons that a change affects. NUT's own enumerator creates the units of the drivers. This
    module runs it, and disables its path unit, which could otherwise run it at the same time.
  - Finally it asks C(upsd) whether it has fresh data for every UPS and lists this host's C(upsmon) among its clients. C(upsmon) does
    not repeat a refused login, so if C(upsd) accepts it now, C(upsmon) is restarted once, on mains.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) installs O(files).
      - V(absent) stops NUT on this host, keeps it from starting, and empties its files, in an order that never lets the next reboot
        switch off a UPS. Packages stay.
    type: str
    choices: [present, absent]
    default: present
  files:
    description:
      - The files, as a mapping of name to text. A primary has V(nut.conf), V(ups.conf), V(upsd.conf), V(upsd.users),
        V(upssched.conf) and V(upsmon.conf), a secondary V(nut.conf), V(upssched.conf) and V(upsmon.conf).
      - Required if O(state=present).
      - Directives that the installed release of NUT does not know are left out with a warning. If leaving one out would be
        unsafe, the module fails.
      - The first time that it replaces a file that was not written by this collection, the module keeps a copy as
        V(NAME.before-homelab-nut).
      - If a UPS in V(ups.conf) has the driver V(auto), the host chooses the driver for the UPS on its USB bus. The section
        also stays while no UPS is plugged in.
    type: dict
  policy:
    description:
      - How to name UPSes on the USB bus that O(files) do not declare, and the rules that choose a driver, as in the role
        P(homelab.nut.nut_hotplug#role).
      - Default is to ignore these UPSes.
    type: dict
  tls:
    description:
      - The certificates that O(files) refer to, as the lookup P(homelab.nut.certificate#lookup) returns them.
      - C(certutil) and C(openssl) put them into an NSS database, the only form that Debian's NUT reads.
      - At the end the module connects to C(upsd) with TLS and verifies its certificate.
    type: dict
    suboptions:
      ca:
        description: Certificates of the authority, in PEM.
        type: str
        required: true
      certificate:
        description: The host's own certificate, in PEM, for a primary.
        type: str
        default: ""
      key:
        description: Its private key, in PEM.
        type: str
        default: ""
      nickname:
        description: The name of the certificate in CERTIDENT of C(upsd.conf).
        type: str
        default: ""
      path:
        description: Where O(files) expect the database. Ignored, because the path follows from the certificates.
        type: path
      kept:
        description: Whether the controller has the authority. V(false) if it would make one.
        type: bool
        default: true
  secrets:
    description:
      - Which passwords and certificates this run may replace on a primary. If it would replace others, nothing is changed, because
        the machines that have the old ones could not log in any more.
      - Default is to replace whatever differs.
    type: dict
    version_added: 0.2.0
    suboptions:
      kept_in:
        description: The folder on the controller with the passwords and certificates, for messages.
        type: str
        required: true
      rotate:
        description: The command that makes new ones, for messages.
        type: str
        required: true
      replaceable:
        description: The users in V(upsd.users) whose passwords may be replaced.
        type: list
        elements: str
        default: []
      authority_replaceable:
        description: Whether the certificate authority may be replaced.
        type: bool
        default: false
  login_remedy:
    description:
      - What to do if the C(upsd) of another host does not accept a login in V(upsmon.conf), for messages.
      - If set, each such login is tried before C(upsmon) is restarted, as C(upsmon) would do it. If it is refused, or if C(upsd)
        does not answer a new one, nothing is changed, because C(upsmon) does not repeat a refused login.
    type: str
    default: ""
    version_added: 0.2.0
  wait:
    description:
      - How many seconds to wait for drivers, C(upsd) and C(upsmon) to work. Also how many seconds to wait, at the start,
        for another run on this host to end.
    type: int
    default: 60
  require_ups:
    description:
      - Whether to fail if a UPS is not plugged in or does not answer. If V(false), warn instead.
      - A driver that is down for any other reason is always a failure.
    type: bool
    default: false
  force:
    description: Continue although a UPS is on battery, low, calibrating, bypassed or off.
    type: bool
    default: false
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Passwords are masked.
  idempotent:
    support: full
  platform:
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Configure a secondary
  homelab.nut.config:
    files:
      nut.conf: "{{ lookup('ansible.builtin.template', 'nut.conf.j2') }}"
      upssched.conf: "{{ lookup('ansible.builtin.template', 'upssched.conf.j2') }}"
      upsmon.conf: "{{ lookup('ansible.builtin.template', 'upsmon.conf.j2') }}"
"""

RETURN = r"""
release:
  description: The release of NUT on this host. Empty if it is not installed.
  returned: always
  type: str
  sample: 2.8.1
advice:
  description:
    - Known problems of this release for which something must be done on this host, and what. M(homelab.nut.doctor) also lists those
      that are good to know.
  returned: always
  type: list
  elements: str
proxmox:
  description: Whether this host is a node of Proxmox VE.
  returned: success
  type: bool
former:
  description: What this host still has of a primary, although O(files) make it a secondary, or it is removed.
  returned: success
  type: list
  elements: str
  sample: ["its UPSes in ups.conf", "nut-shutdown"]
kept:
  description: Backup copies of files that were not written by this collection.
  returned: always
  type: list
  elements: str
files:
  description: The files that were replaced, or would be in check mode.
  returned: always
  type: list
  elements: str
actions:
  description: The actions on systemd units, each with its reason. In check mode, those that would follow.
  returned: always
  type: list
  elements: str
  sample: ["restart nut-monitor.service: upsmon.conf changed"]
upses:
  description: The status of each UPS, by name, as C(upsd) on this host reports it at the end.
  returned: success, when not in check mode
  type: dict
  sample: {"ups": "OL CHRG"}
"""

from ..module_utils import _config
from ..module_utils._module import Module


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            "state": {"choices": ["present", "absent"], "default": "present"},
            "files": {"type": "dict", "no_log": True},
            "policy": {"type": "dict"},
            "tls": {
                "type": "dict",
                "options": {
                    "ca": {"type": "str", "required": True},
                    "certificate": {"type": "str", "default": ""},
                    "key": {"type": "str", "default": "", "no_log": True},
                    "nickname": {"type": "str", "default": ""},
                    "path": {"type": "path"},
                    "kept": {"type": "bool", "default": True},
                },
            },
            "secrets": {
                "type": "dict",
                "no_log": False,
                "options": {
                    "kept_in": {"type": "str", "required": True},
                    "rotate": {"type": "str", "required": True},
                    "replaceable": {"type": "list", "elements": "str", "default": []},
                    "authority_replaceable": {"type": "bool", "default": False},
                },
            },
            "login_remedy": {"type": "str", "default": ""},
            "wait": {"type": "int", "default": 60},
            "require_ups": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ["files"])],
        supports_check_mode=True,
    )
    _config.run(module)


if __name__ == "__main__":
    main()
