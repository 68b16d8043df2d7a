#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action plugin homelab.nut.zipapp."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zipapp
short_description: Install a script and a package of this collection on a host as one program
version_added: 0.2.0
description:
  - Packs a script and a package of this collection's C(module_utils) into one executable file, a Python zip application.
  - The same sources give the same file, byte for byte, so the program changes only if they do.
  - The host needs only the interpreter, and only this file is installed there.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  main:
    description:
      - The script, searched for in C(files) of the role. It becomes C(__main__.py) and imports the package by name.
    type: path
    required: true
  package:
    description: The package in C(module_utils).
    type: str
    default: _nut
  dest:
    description: Where to put the program.
    type: path
    required: true
  shebang:
    description:
      - The interpreter on the host, with one argument at most.
      - With C(-IS) Python ignores the environment, the user's and the site's packages, and starts faster.
    type: str
    default: /usr/bin/python3 -IS
  head:
    description:
      - A file, searched for in C(files) of the role, to begin the program with instead of O(shebang).
      - "For example a shell script that runs the archive with C(python3 $0). Its last line must C(exec) or C(exit)."
    type: path
  first:
    description:
      - A file of the package, such as C(_nut/hotplug/quiet.py), to put first in the archive, right after O(head).
      - The script in O(head) can then read it without knowing the format of the archive.
    type: str
  owner:
    description: The program's owner. Default is the user that Ansible runs as on the host.
    type: str
  group:
    description: The program's group.
    type: str
  mode:
    description: The program's mode, as M(ansible.builtin.copy) takes it.
    type: raw
    default: "0755"
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  async:
    support: none
    details:
      - An action plugin on the controller does a part of the work.
  check_mode:
    support: full
  diff_mode:
    support: partial
    details:
      - Reports that the program changes, not how.
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Install nut-hotplug
  homelab.nut.zipapp:
    main: nut_hotplug.py
    dest: /usr/local/sbin/nut-hotplug
    owner: root
    group: root
"""

RETURN = r"""
dest:
  description: The path of the program.
  returned: success
  type: str
  sample: /usr/local/sbin/nut-hotplug
checksum:
  description: The SHA1 sum of the program.
  returned: success
  type: str
  sample: 6e642bb8dd5c2e027bf21dd923337cbb4214f827
"""
