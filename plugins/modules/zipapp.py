#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action plugin of this name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zipapp
short_description: Put a script and a package of this collection onto a host as one program
version_added: 0.2.0
description:
  - Packs a script and a package of this collection's C(module_utils) into one executable file, a Python zip application.
  - The same sources give the same file, so nothing changes unless they do.
  - The host needs the interpreter and nothing else; nothing but this file is left there.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  main:
    description:
      - The script, searched for in C(files) of the role. It becomes C(__main__.py), and imports the package by its name.
    type: path
    required: true
  package:
    description: The package.
    type: str
    default: _nut
  dest:
    description: Where to put the program.
    type: path
    required: true
  shebang:
    description:
      - The interpreter on the host, with one argument at most.
      - With C(-IS) Python looks at nothing of the user's or the site's, and starts faster.
    type: str
    default: /usr/bin/python3 -IS
  head:
    description:
      - A file, searched for in C(files) of the role, that the program begins with instead of O(shebang).
      - "A script of the shell, for example, that runs the archive with C(python3 $0). Its last line must C(exec) or C(exit)."
    type: path
  first:
    description:
      - A file of the package, such as C(_nut/hotplug/quiet.py), that is put before all others, right behind O(head).
      - What stands in O(head) can then read it without knowing the format of the archive.
    type: str
  owner:
    description: Who owns the program. If it is not given, the user that Ansible works as.
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
  check_mode:
    support: full
  diff_mode:
    support: partial
    details:
      - Says that the program changes, not how.
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Install the agent
  homelab.nut.zipapp:
    main: nut_hotplug.py
    dest: /usr/local/sbin/nut-hotplug
    owner: root
    group: root
"""

RETURN = r"""
dest:
  description: Where the program is.
  returned: success
  type: str
  sample: /usr/local/sbin/nut-hotplug
checksum:
  description: The SHA1 sum of the program.
  returned: success
  type: str
  sample: 6e642bb8dd5c2e027bf21dd923337cbb4214f827
"""
