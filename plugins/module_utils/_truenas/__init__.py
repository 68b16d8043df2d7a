# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TrueNAS as a NUT secondary. Private to this collection: anything here may change without notice.

middleware   the interface of a connection to TrueNAS's middleware, and its errors
login        the login over the network, with a password or an API key
scram        how an API key is proved without being sent
jsonrpc      the connection over the network: JSON-RPC 2.0 over a WebSocket, from 25.04 on
midclt       the connection on TrueNAS itself, through its own command midclt
stream       limits for time and size that a connection sets for the other side
ups          options and plan for the UPS service; pure
apply        the steps of a plan, and the truth about their result; independent of the connection
module       chooses the connection, and runs the Ansible module
"""
