#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.config."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config
short_description: NUT's configuration of a host, checked and taken up as one
version_added: 0.1.0
description:
  - Puts a set of NUT's files in place on a host and makes NUT use them, with the fewest restarts that do.
  - First it looks whether every UPS is plainly on mains. A restart while one is on battery can shut down every host on it,
    so then nothing is changed, unless O(force) is set.
  - Then the files are checked together, and by the host's own NUT in a scratch directory. Only a set that passes is
    put in place, all of it or none, also if the run is killed or the power goes. Then the next run finishes the set, or undoes it.
  - Only what a change touches is restarted or reloaded. The drivers' units are made by NUT's own enumerator, which this module
    calls itself; its path unit, which would race with that, is disabled.
  - In the end C(upsd) itself is asked whether it serves every UPS fresh and lists this host's C(upsmon) among its clients.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  state:
    description:
      - V(present) puts O(files) in place.
      - V(absent) stops NUT on this host, keeps it from starting, and empties its files. It can't leave a UPS that the next reboot
        would cut. Packages stay.
    type: str
    choices: [present, absent]
    default: present
  files:
    description:
      - The files, name to text. A primary has V(nut.conf), V(ups.conf), V(upsd.conf), V(upsd.users), V(upssched.conf) and
        V(upsmon.conf), a secondary V(nut.conf), V(upssched.conf) and V(upsmon.conf).
      - Required if O(state=present).
      - What the installed release of NUT does not know is left out, with a warning, or refused where that would be unsafe.
      - A file that somebody else has written is kept beside the first of these that takes its place, as
        V(NAME.before-homelab-nut).
      - Where the driver of a UPS in V(ups.conf) is V(auto), it is found out on the host by what hangs on its USB bus. Until one does, and
        after it is pulled out, the name stays.
    type: dict
  policy:
    description:
      - What becomes of UPSes on the USB bus that O(files) do not name, and by which rules one gets its driver, as in the role
        P(homelab.nut.nut_hotplug#role).
      - If it is not given, they are left alone.
    type: dict
  tls:
    description:
      - The certificates that O(files) refer to, as the lookup P(homelab.nut.certificate#lookup) returns them.
      - They are put into an NSS database, which is what Debian's NUT reads. C(certutil) and C(openssl) make it.
      - That the connection really is encrypted, and the certificate good, is seen in the end.
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
        description: The name by which CERTIDENT of C(upsd.conf) calls the certificate.
        type: str
        default: ""
      path:
        description: Where O(files) expect the database. It is told by the certificates themselves, and so not read.
        type: path
  wait:
    description:
      - How many seconds to wait until drivers, C(upsd) and C(upsmon) serve; and, before anything, for another run on this host to end.
    type: int
    default: 60
  require_ups:
    description:
      - Whether a UPS that is not there, or does not answer, is a failure. If V(false), it is a warning.
      - A driver that does not run for another reason is always a failure.
    type: bool
    default: false
  force:
    description: Go on though a UPS is on battery, low, calibrating, bypassed or off.
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
      - Passwords are replaced by a mark.
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
  description: What this release is known to be bad at, as far as it touches this host, and what to do.
  returned: always
  type: list
  elements: str
kept:
  description: Copies that were made of files that somebody else had written.
  returned: always
  type: list
  elements: str
files:
  description: The files that were replaced, or would be.
  returned: always
  type: list
  elements: str
actions:
  description: What was done to units, or would be, with the reason.
  returned: always
  type: list
  elements: str
  sample: ["restart nut-monitor.service: upsmon.conf changed"]
upses:
  description: What C(upsd) of this host says of its UPSes in the end, name to status.
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
                },
            },
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
