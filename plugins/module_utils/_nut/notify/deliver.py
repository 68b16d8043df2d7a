# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sends one message with Apprise. Runs in a process of its own, as nobody; see sender.py."""

from __future__ import annotations

import ctypes
import importlib
import logging
import re
import resource
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from ..base import jsontext
from ..base.text import one_line, printable

INPUT = 64 * 1024  # bytes of the job
TYPES = {"detail": "info", "info": "info", "warning": "warning", "critical": "failure"}  # severity -> Apprise's type
PR_SET_DUMPABLE = 4
_PART = 4  # characters of the shortest part of a URL that is masked


class DeliveryError(Exception):
    """The message was not sent. The text says why, without secrets."""


def hide_memory() -> None:
    """Keep other processes of this user from reading this one's memory, which has the URL."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def mask_url(text: str, url: str) -> str:
    """Return a text in which no part of a URL can be read. Services repeat tokens, users and hosts in their answers."""
    parts = {url, *(part for part in re.split(r"[/:@?&=#,]+", url.partition("://")[2]) if len(part) >= _PART)}
    parts |= {unquote(part) for part in parts}
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def deliver(job: bytes, load_apprise: Callable[[], Any] | None = None) -> None:
    """Send the message of a job: JSON with url, title, body and severity. Raise DeliveryError."""
    try:
        given = jsontext.parse_json(job)
        url, title, body, severity = (str(given[key]) for key in ("url", "title", "body", "severity"))
    except (ValueError, TypeError, KeyError):
        raise DeliveryError("the job can't be read") from None
    heard: list[str] = []
    try:
        apprise = (load_apprise or _load_apprise)()
        _listen(heard)
        client = apprise.Apprise()
        if not client.add(url):
            raise DeliveryError("Apprise does not know this kind of URL, or it lacks something")
        sent = client.notify(body=body, title=title, notify_type=TYPES.get(severity, "info"), body_format="text")
    except ImportError as error:
        raise DeliveryError(f"Apprise can't be loaded ({error}). Install Debian's package apprise") from None
    except DeliveryError:
        raise
    except Exception as error:
        # it is foreign code, and its error may have the URL
        words = f"{type(error).__name__}: {error}"
        raise DeliveryError(printable(one_line(mask_url(words, url)), 250)) from None
    if not sent:
        raise DeliveryError(printable(one_line(mask_url("; ".join(heard[-3:]), url)), 250) or "the service refused it")


def _load_apprise() -> Any:
    # a package of the distribution, which hosts without such targets do not have
    return importlib.import_module("apprise")


def _listen(heard: list[str]) -> None:
    """Collect what Apprise logs, which is the only place where it tells why something failed."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logger = logging.getLogger("apprise")
    logger.addHandler(Listener(logging.WARNING))
    logger.propagate = False
