# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The attributes of all modules. Each module says how far it supports them."""

    DOCUMENTATION = r"""
options: {}
attributes:
  async:
    description:
      - Supports being used with the C(async) keyword.
    support: full
  check_mode:
    description:
      - Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
  platform:
    description:
      - Target OS/families that can be operated against.
"""

    # For modules that only query.
    READ_ONLY = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This module does not modify anything.
  diff_mode:
    support: N/A
    details:
      - This module does not modify anything.
  idempotent:
    support: full
    details:
      - This module does not modify anything.
"""

    # For modules that install one of our programs.
    SERVICE = r"""
options:
  log:
    description: The log file. Its directory is created if it does not exist.
    type: path
  wait:
    description: Seconds to wait for another run that is changing NUT.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    details:
      - Does not fail on a host where NUT is not configured yet; the message says so.
  diff_mode:
    support: full
  idempotent:
    support: full
  platform:
    support: full
    platforms: debian
"""
