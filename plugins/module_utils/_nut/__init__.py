# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this collection knows about NUT, as a library.

It is private to the collection. It needs the standard library only and nothing of Ansible: it also runs on the hosts.
"""
