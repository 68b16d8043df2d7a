# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between the TrueNAS releases that the stand-in can play.

Source: the recorded conversations (tests/unit/recordings/truenas) unless a comment says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Release:
    """One release: each member is something that a client can see."""

    version: str
    #: Paths below /api/ besides `current`. The last one is what `current` means.
    api_versions: tuple[str, ...]
    #: The schema before pydantic: it stops at the first bad value, takes "3493" for 3493, and has other words.
    classic_schema: bool
    #: What stands before the name of a field that the schema refuses. The service's own checks say `ups_update`.
    schema_attribute: str
    ping_needs_login: bool
    #: service.control exists.
    service_control: bool
    #: service.start, stop and restart are for everybody with the role; otherwise they are private.
    service_verbs_public: bool
    #: core.set_options answers with the options; otherwise with null.
    options_answered: bool
    #: Members of a successful login_ex beyond the common ones.
    login_members: Mapping[str, Any] = field(default_factory=dict)
    #: Old API version (a prefix) -> method (or its prefix) -> how a call dies there.
    #: Seen by running the real adapters; the wording is not recorded.
    broken: Mapping[str, Mapping[str, tuple[str, str]]] = field(default_factory=dict)


_NO_METHOD = ("ENOMETHOD", "[ENOMETHOD] Method does not exist")
_V25_04 = ("v25.04.0", "v25.04.1", "v25.04.2")
_V25_10 = ("v25.10.0", "v25.10.1", "v25.10.2")
_BEFORE_MODELS = {"v25.04": {"ups.": _NO_METHOD, "service.": _NO_METHOD}}

RELEASES: Mapping[str, Release] = {
    "25.04": Release(
        version="25.04.2.6",
        api_versions=_V25_04,
        classic_schema=True,
        schema_attribute="ups_update",
        ping_needs_login=True,
        service_control=False,
        service_verbs_public=True,
        options_answered=False,
    ),
    "25.10": Release(
        version="25.10.6",
        api_versions=(*_V25_04, *_V25_10),
        classic_schema=False,
        schema_attribute="ups_update",
        ping_needs_login=False,
        service_control=True,
        service_verbs_public=True,
        options_answered=True,
        broken=_BEFORE_MODELS,
    ),
    "26": Release(
        version="26.0.0-BETA.3",
        api_versions=(*_V25_04, *_V25_10, "v26.0.0"),
        classic_schema=False,
        schema_attribute="data",
        ping_needs_login=False,
        service_control=True,
        service_verbs_public=False,
        options_answered=True,
        login_members={"reconnect_token": None},
        # The argument of ups.update was renamed, and the adapter for old clients still looks for the new name.
        broken={**_BEFORE_MODELS, "v25.10": {"ups.update": ("EINVAL", "'data'")}},
    ),
}
