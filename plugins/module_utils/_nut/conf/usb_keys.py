# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The keys of ups.conf by which a driver finds its UPS on the USB bus, and values of them that no UPS can have.

NUT compares each as a POSIX extended regular expression, in any case, with the whole text: the ids as four hexadecimal digits, bus,
busport and device as three digits (drivers/usb-common.c, libusb1.c). A value that matches none of these is accepted without a word, and
the driver never finds a UPS.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

ID_KEYS = ("vendorid", "productid")
# with the largest number that Linux gives; the first is 1
NUMBER_KEYS = {"bus": 999, "busport": 31, "device": 127}
TEXT_KEYS = ("vendor", "product", "serial")
# our own value of vendorid for a section whose driver must take no UPS
NO_DEVICE = "none"

# patterns that match only themselves
_LITERAL = re.compile(r"[A-Za-z0-9 _,:;/@%=~<>!&-]*")
_DRIVERS = ("", "auto", "usbhid-ups", "nutdrv_qx", "apc_modbus")
_HEX = r"(?:0x)?0*([0-9a-f]{1,4})"
_ONE_ID = re.compile(rf"{_HEX}h?", re.IGNORECASE)
# such as 051d:0002, 0x051d/0x0002, v051Dp0002, VID_051D&PID_0002
_BOTH_IDS = re.compile(
    rf"(?:ID )?{_HEX}[:/,;. -]+{_HEX}|.*v(?:id_)?([0-9a-f]{{4}}).?p(?:id_)?([0-9a-f]{{4}}).*", re.IGNORECASE
)
_BLANKS = " \t\n"
_FOUR_DIGITS = re.compile(r"(?<![0-9a-z])(?:0x)?([0-9a-f]{4})(?![0-9a-z])", re.IGNORECASE)


def is_for_usb(driver: str) -> bool:
    """Return whether a driver compares these keys with a UPS on the USB bus."""
    return driver in _DRIVERS or driver.endswith("_usb")


def explain_unmatchable(key: str, value: str | None, driver: str = "") -> str:
    """Return why a key of ups.conf can't match any UPS, and the right value, as words after its name; "" if it can."""
    low = key.lower()
    if value is None:
        return ""
    if low in ID_KEYS and not _can_match(value, "{:04x}", range(0x10000)):
        digits, remedy = "the four hexadecimal digits that `lsusb` shows", _suggest_id(low, value)
    elif low in NUMBER_KEYS and is_for_usb(driver):
        numbers = range(1, NUMBER_KEYS[low] + 1)
        if _can_match(value, "{:03d}", numbers):
            return ""
        digits, remedy = "three digits", _suggest_number(low, value, numbers)
    elif low in TEXT_KEYS and is_for_usb(driver):
        return _explain_unmatchable_text(low, value)
    else:
        return ""
    return f"is {value!r}, which matches no UPS: NUT compares it, as a regular expression, with {digits}. {remedy}"


def _explain_unmatchable_text(key: str, value: str) -> str:
    """Return why a pattern can't match any text that NUT reads, as words after its name; "" if it can."""
    if compile_by_libc(value) is None:
        return f"is {value!r}, which is no valid regular expression. Put characters such as ? * ( [ into brackets, as in [?]"
    if "|" in value:
        return ""
    stripped = value.rstrip(_BLANKS)
    if not re.match(rf"[{_BLANKS}]+[?*{{]", stripped):
        stripped = stripped.lstrip(_BLANKS)
    if stripped != value:
        why, remedy = "NUT strips the blanks around what it reads", stripped
    elif not value.isascii():
        why = "NUT reads a question mark for each character that is not ASCII"
        remedy = "".join(sign if sign.isascii() else "[?]" * (2 if ord(sign) > 0xFFFF else 1) for sign in value)
    else:
        return ""
    return f"is {value!r}, which matches no UPS: {why}. " + (f'Write {key}: "{remedy}"' if remedy else f"Remove {key}")


def _suggest_number(key: str, text: str, numbers: range) -> str:
    """Return what to write in place of a text, such as 1-1.4, of which the last number is the port."""
    found = [int(digits) for digits in re.findall(r"[0-9]+", text)]
    meant = (found[0] if key == "bus" else found[-1]) if found else 0
    return f'Write {key}: "{meant:03d}"' if meant in numbers else f"It is a number from 001 to {numbers[-1]:03d}"


def correct_id(key: str, value: str) -> str:
    """Return the id that a value of vendorid or productid most likely means, as four digits; "" if that is unclear."""
    text = value.strip()
    one, both = _ONE_ID.fullmatch(text), _BOTH_IDS.fullmatch(text)
    if one:
        return one[1].lower().zfill(4)
    if both:
        vendor, product = both[1] or both[3], both[2] or both[4]
        return (vendor if key.lower() == "vendorid" else product).lower().zfill(4)
    found = {digits.lower() for digits in _FOUR_DIGITS.findall(text)}
    return found.pop() if len(found) == 1 else ""


def _suggest_id(key: str, text: str) -> str:
    both = _BOTH_IDS.fullmatch(text.strip())
    if both:
        return f'Write vendorid: "{correct_id("vendorid", text)}" and productid: "{correct_id("productid", text)}"'
    meant = correct_id(key, text)
    return f'Write {key}: "{meant}"' if meant else "Write these digits, such as 051d"


@functools.lru_cache(maxsize=256)
def _can_match(pattern: str, form: str, numbers: range) -> bool:
    """Return whether a pattern matches any of the numbers in this form."""
    if _LITERAL.fullmatch(pattern):
        base = 16 if form.endswith("x}") else 10
        digits = "[0-9a-f]{4}" if base == 16 else "[0-9]{3}"
        return re.fullmatch(digits, pattern.lower()) is not None and int(pattern, base) in numbers
    matches = compile_by_libc(pattern)
    return matches is not None and any(matches(form.format(number)) for number in numbers)


@functools.lru_cache(maxsize=256)
def compile_by_libc(pattern: str) -> Callable[[str], bool] | None:
    """Return a function that matches a whole text with the C library's regcomp, as NUT does: Python's dialect differs.

    None if the pattern is invalid.
    """
    import ctypes  # noqa: PLC0415 - slow to import, and rarely needed

    libc = ctypes.CDLL(None)
    extended, any_case = 1, 2
    # in glibc regex_t has 64 bytes
    compiled = ctypes.create_string_buffer(1024)
    raw = pattern.encode("utf-8", "replace")
    if "\0" in pattern or libc.regcomp(compiled, raw, extended | any_case):
        return None
    libc.regfree(compiled)
    if libc.regcomp(compiled, b"^(" + raw + b")$", extended | any_case):
        return None

    def matches(text: str) -> bool:
        return bool(libc.regexec(compiled, text.encode("ascii", "replace"), ctypes.c_size_t(0), None, 0) == 0)

    return matches
