# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that connect to upsd."""

    DOCUMENTATION = r"""
options:
  host:
    description: The address of C(upsd), as seen from the host on which this module runs.
    type: str
    default: localhost
  port:
    description: The port that C(upsd) listens on.
    type: int
    default: 3493
  timeout:
    description: Seconds that one round of queries may take, from the lookup of the name to the last answer.
    type: int
    default: 5
  tls:
    description:
      - Whether to encrypt the connection and verify C(upsd)'s certificate. If either is impossible, the module fails.
      - By default V(true) if O(ca), O(ca_path) or O(server_name) is set.
    type: bool
  ca:
    description:
      - Certificates (PEM) to trust with O(tls), and no others.
      - If neither O(ca) nor O(ca_path) is set, the certificates that are trusted by the host on which this module runs.
    type: str
  ca_path:
    description: Like O(ca), from a file on the host on which this module runs.
    type: path
  server_name:
    description:
      - The name or address that C(upsd)'s certificate must be valid for. By default O(host).
      - Needed if the certificate is not valid for O(host).
    type: str
attributes:
  action_group:
    description:
      - Use C(group/homelab.nut.upsd) in C(module_defaults) to set options for this module and the others that connect to C(upsd).
    support: full
    membership:
      - homelab.nut.upsd
"""
