# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Draw docs/timeline.svg, the README's picture of a shutdown: the plan of the example homelab, as `make plan` draws it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "timeline.svg"

sys.path.insert(0, str(CHECKOUT / ".collections"))

from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import drawing, model, picture, planner

MACHINES = (
    model.PlanMachine("proxmox", model.PRIMARY, "pve"),
    model.PlanMachine("nas", model.SECONDARY, "truenas", shutdown_time=90, shutdown_limit=135),
    model.PlanMachine("media", model.SECONDARY, "linux", shutdown_time=30, shutdown_limit=60),
)
SUPPLY = model.Supply(runtime=1800, runtime_low=480, charge=100, offdelay=20, ondelay=30, ignorelb=True)
TIMING = model.Timing(finaldelay=2, guests_time=120, reserve=190, reserve_minimum=40, poweroff_wait=90)


def render_page() -> str:
    """Return the picture, with the colours of the plan's page and a background."""
    plan = planner.make_plan(MACHINES, [SUPPLY], TIMING)
    style = re.search(r"<style>(.*?)</style>", picture.draw_page(plan), re.DOTALL)
    drawn = re.search(r'(<svg) (viewBox="0 0 (\d+) (\d+)".*?>)(.*)', drawing.draw_timeline(plan), re.DOTALL)
    if style is None or drawn is None:
        raise SystemExit("the plan's page has changed its form: adapt tools/timeline.py to plan/picture.py")
    start, attributes, width, height, inner = drawn.groups()
    colours = re.sub(r"(?m)^(?!:root|  --|@media|svg).*\n", "", style[1])
    back = f'<rect width="{width}" height="{height}" fill="var(--card)"/>'
    return (
        f'{start} xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {attributes}'
        f"<style>{colours}</style>{back}{inner}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(render_page())
