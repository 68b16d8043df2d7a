#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action plugin homelab.nut.check_login."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_login
short_description: Check that Ansible can log in to a host and is root there
version_added: 0.2.0
description:
  - Logs in to the host as every other task does, and asks for the user. Needs no Python there.
  - If the host can't be reached, its ssh host key is not known, the login is refused, C(become) fails, or the user is not root, the
    task fails with one sentence that has the command or the variable which helps.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  root:
    description: Whether the tasks must run as root.
    type: bool
    default: true
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.read_only
attributes:
  async:
    support: none
    details:
      - An action plugin does the work.
  platform:
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Check that Ansible is root on the host
  homelab.nut.check_login:
"""

RETURN = r"""
problem:
  description: What is wrong. Empty if nothing is.
  returned: always
  type: str
  sample: ops on cellar is not root
remedy:
  description: What to do about it.
  returned: always
  type: str
"""
