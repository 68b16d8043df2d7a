# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Where upsd is, and how it is spoken to."""

    DOCUMENTATION = r"""
options:
  host:
    description: Where C(upsd) listens, as seen from the host on which this module runs.
    type: str
    default: localhost
  port:
    description: The port on which C(upsd) listens.
    type: int
    default: 3493
  timeout:
    description: How many seconds one look may take, from the resolving of the name to the last answer.
    type: int
    default: 5
  tls:
    description:
      - Whether the connection is encrypted, and C(upsd)'s certificate checked. It never goes on without where that fails.
      - If not given, V(true) with O(ca), O(ca_path) or O(server_name).
    type: bool
  ca:
    description:
      - The certificates (PEM) that are trusted for O(tls), and no others.
      - Without O(ca) and O(ca_path) those that the host trusts on which this module runs.
    type: str
  ca_path:
    description: As O(ca), from a file on the host on which this module runs.
    type: path
  server_name:
    description:
      - The name or address that C(upsd)'s certificate must be for. If not given, O(host).
      - Needed where O(host) is not in the certificate.
    type: str
"""
