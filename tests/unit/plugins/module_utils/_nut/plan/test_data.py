# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.data import plan_from_dict, plan_to_dict
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    GOES_DOWN,
    PlanError,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.text import (
    spell_verdict,
)
from ansible_collections.homelab.nut.tests.unit.support.plans import (
    SITE,
    UNSTAGED,
    PlanSite,
)


def test_plan_as_data_has_verdict() -> None:
    made = SITE.make_plan()
    data = plan_to_dict(made)
    assert json.loads(json.dumps(data)) == data
    assert data["holds"] is True
    assert data["verdict"] == spell_verdict(made)
    assert data["machines"][2]["needs"] == ["truenas"]
    assert {"at": 10.0, "until": 70.0, "machine": "truenas", "what": GOES_DOWN, "worst": False} in data["events"]


@pytest.mark.parametrize("site", [SITE, UNSTAGED, SITE.change_ups(runtime=None)])
def test_plan_survives_conversion_to_data(site: PlanSite) -> None:
    made = site.make_plan()
    assert plan_from_dict(json.loads(json.dumps(plan_to_dict(made)))) == made


@pytest.mark.parametrize("change", [{"events": [{"at": 1}]}, {"needed": ...}, {"machines": 7}, {"worst": [{"odd": 1}]}])
def test_data_without_a_valid_plan_is_refused(change: dict[str, Any]) -> None:
    data = {**plan_to_dict(SITE.make_plan()), **change}
    with pytest.raises(PlanError, match="not a saved plan"):
        plan_from_dict({name: value for name, value in data.items() if value is not ...})
