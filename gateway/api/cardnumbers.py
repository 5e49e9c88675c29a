"""Recognizes card numbers in a request, so that they are refused before anything is stored or logged (PCI DSS, SAQ A).

A digit run of 13 to 19 with a valid Luhn check digit and a card scheme's first digit counts, also when grouped by
spaces or hyphens. One number in ten passes Luhn, so the first digit keeps order numbers and timestamps usable.
"""

from __future__ import annotations

import re

# Card schemes issue under 2 (Mastercard), 3 (Amex, Diners, JCB), 4 (Visa), 5 (Mastercard, Maestro) and 6 (Discover,
# UnionPay, Maestro); ISO/IEC 7812-1 gives the other digits to other industries.
_CANDIDATE = re.compile(r"(?<![0-9A-Za-z])[2-6](?:[ -]?[0-9]){12,18}(?![0-9A-Za-z])")
_GROUPING = str.maketrans("", "", " -")


def luhn(digits: str) -> bool:
    """The check of ISO/IEC 7812-1 Annex B."""
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(int(digit) for digit in digits[-1::-2]) + sum(n - 9 if n > 9 else n for n in doubled)) % 10 == 0


def looks_like_card(text: str) -> bool:
    return any(luhn(match.group().translate(_GROUPING)) for match in _CANDIDATE.finditer(text))


def find_card(value: object, path: str = "") -> str | None:
    """The dotted path of the first field that looks like a card number ("" for the value itself), or None."""
    if isinstance(value, dict):
        for name, member in value.items():
            if looks_like_card(str(name)):
                return path
            if (found := find_card(member, f"{path}.{name}" if path else str(name))) is not None:
                return found
        return None
    if isinstance(value, list):
        found_in = (find_card(member, f"{path}.{index}" if path else str(index)) for index, member in enumerate(value))
        return next((found for found in found_in if found is not None), None)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return path if looks_like_card(text) else None
