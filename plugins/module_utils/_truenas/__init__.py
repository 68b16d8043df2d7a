# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TrueNAS as a NUT secondary. Private to this collection: no promise about what is in here.

middleware   what a way into TrueNAS's middleware must offer, its errors, the login
jsonrpc      JSON-RPC 2.0 over a WebSocket, from 25.04 on
midclt       TrueNAS's own program, on TrueNAS itself
ups          options, plan and apply for the UPS service; knows no transport
module       chooses the way, and ties all together for the Ansible module
"""
