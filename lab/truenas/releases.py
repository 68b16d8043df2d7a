# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The differences between the TrueNAS releases that the stand-in can play.

Source: the recorded conversations (tests/unit/recordings/truenas) unless a comment says otherwise. The releases before
25.04 are not recorded; their values come from the source of truenas/middleware, except for the version strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Release:
    """A release. Each member is a difference that clients can see."""

    version: str
    #: Paths below /api/ besides `current`. The last one is what `current` means.
    api_versions: tuple[str, ...]
    #: The schema before pydantic: it looks at types first and at ranges later, takes "3493" for 3493 and 3493 for
    #: "3493", and has other messages.
    classic_schema: bool
    #: The prefix of a field's name in errors of the schema. The service's own checks use `ups_update`.
    schema_attribute: str
    ping_needs_login: bool
    #: service.control exists.
    service_control: bool
    #: service.start, stop and restart are public (for users with the role); otherwise they are private.
    service_verbs_public: bool
    #: core.set_options answers with the options; otherwise with null.
    options_answered: bool
    #: It has JSON-RPC. Older releases redirect such requests to the web interface, so only midclt works.
    json_rpc: bool = True
    #: CORE: it can send mail about the UPS, and switches the UPS off after a shutdown unless told otherwise.
    core: bool = False
    #: The class in the message about an update that is no object.
    update_words: str = "UPSUpdate"
    #: The positional parameters of ConfigService.update, which an error names.
    update_arguments: int = 3
    #: A right secret of a user without a privilege is DENIED; otherwise it is as wrong as any other.
    says_denied: bool = False
    #: A key that is revoked already is as unknown as a wrong one; otherwise it is EXPIRED.
    hides_revoked_keys: bool = False
    #: API keys can be proved with SCRAM.
    scram: bool = False
    #: auth.mechanism_choices fails without a login (25.04.2 to 25.10).
    mechanism_choices_broken: bool = False
    #: A start checks the settings first, and is healthy only if no unit has failed that upsmon's unit wants (from 26.0.0-BETA.2).
    checks_configuration: bool = False
    checks_wanted_units: bool = False
    #: service.control RELOAD leaves a stopped service alone, and answers false.
    reload_needs_running: bool = False
    #: upssched's pipe is in a directory of its own (from 24.10 on).
    private_pipe: bool = True
    #: The classic schema as it was first: only digits pass for a number in a string, and a blank is not empty.
    old_schema: bool = False
    #: The options of service.start and its like have `silent`: from 22.12 on (NAS-115223).
    service_silent: bool = True
    #: service.stop returns false for a service that is stopped.
    inverted_stop: bool = False
    #: midclt: `-` among the arguments of `call` is one JSON payload from stdin. Else it is the string "-".
    stdin_payload: bool = False
    #: midclt: -j takes a value, and any but the empty one means yes. Else -j is a flag.
    job_flag_takes_value: bool = False
    #: midclt: the errors for an unknown method of a known and of an unknown service. None: as in JSON-RPC.
    unknown_method: tuple[str, str] | None = None
    #: midclt: it prints an error if the middleware does not run; otherwise it dies with a traceback.
    says_daemon_down: bool = True
    #: midclt: a refused login is printed to stdout, with exit code 0; otherwise the call fails with ENOTAUTHENTICATED.
    #: Which release does which is not recorded; a client must handle both.
    login_failure_exits_0: bool = False
    #: Members of a successful login_ex beyond the common ones.
    login_members: Mapping[str, Any] = field(default_factory=dict)
    #: Old API version (a prefix) -> method (or its prefix) -> how a call dies there.
    #: Seen by running the real adapters; the wording is not recorded.
    broken: Mapping[str, Mapping[str, tuple[str, str]]] = field(default_factory=dict)


_NO_METHOD = ("ENOMETHOD", "[ENOMETHOD] Method does not exist")
_V25_04 = ("v25.04.0", "v25.04.1", "v25.04.2")
_V25_10 = ("v25.10.0", "v25.10.1", "v25.10.2")
_BEFORE_MODELS = {"v25.04": {"ups.": _NO_METHOD, "service.": _NO_METHOD}}

_UNKNOWN_METHOD = (
    "[ENOMETHOD] Method {method!r} not found in {service!r}",
    "[ENOMETHOD] Service {service!r} not found",
)


def _before_json_rpc(
    version: str, *, core: bool = False, old_schema: bool = False, attribute: str = "ups_update"
) -> Release:
    return Release(
        version=version,
        api_versions=(),
        classic_schema=True,
        private_pipe=not old_schema,
        schema_attribute=attribute,
        ping_needs_login=True,
        service_control=False,
        service_verbs_public=True,
        options_answered=False,
        json_rpc=False,
        core=core,
        old_schema=old_schema,
        service_silent=not core,
        inverted_stop=True,
        job_flag_takes_value=True,
        unknown_method=_UNKNOWN_METHOD,
        says_daemon_down=False,
        login_failure_exits_0=True,
    )


RELEASES: Mapping[str, Release] = {
    "13.0": _before_json_rpc("TrueNAS-13.0-U6.8", core=True, old_schema=True, attribute=""),
    "22.12": _before_json_rpc("TrueNAS-SCALE-22.12.4.2", old_schema=True),
    "24.10": _before_json_rpc("TrueNAS-SCALE-24.10.2.4"),
    "25.04": Release(
        version="TrueNAS-25.04.2.6",
        api_versions=_V25_04,
        classic_schema=True,
        schema_attribute="ups_update",
        ping_needs_login=True,
        service_control=False,
        service_verbs_public=True,
        options_answered=False,
        mechanism_choices_broken=True,
    ),
    "25.10": Release(
        version="TrueNAS-25.10.6",
        api_versions=(*_V25_04, *_V25_10),
        classic_schema=False,
        schema_attribute="ups_update",
        ping_needs_login=False,
        service_control=True,
        service_verbs_public=True,
        options_answered=True,
        update_words="UPSUpdateArgs",
        mechanism_choices_broken=True,
        broken=_BEFORE_MODELS,
    ),
    "26": Release(
        version="TrueNAS-26.0.0-BETA.3",
        api_versions=(*_V25_04, *_V25_10, "v26.0.0"),
        classic_schema=False,
        schema_attribute="data",
        ping_needs_login=False,
        service_control=True,
        service_verbs_public=False,
        options_answered=True,
        stdin_payload=True,
        checks_configuration=True,
        checks_wanted_units=True,
        reload_needs_running=True,
        update_arguments=4,
        says_denied=True,
        hides_revoked_keys=True,
        scram=True,
        login_members={"reconnect_token": None},
        # The argument of ups.update was renamed, and the adapter for old clients still looks for the new name.
        broken={**_BEFORE_MODELS, "v25.10": {"ups.update": ("EINVAL", "'data'")}},
    ),
}
