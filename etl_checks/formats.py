"""Named formats of strings, each an RE2 pattern over the whole value."""

from __future__ import annotations

from functools import cache

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_H16 = r"[0-9A-Fa-f]{1,4}"
# RFC 4291, section 2.2, without embedded IPv4 and zone: eight groups, or one `::` that stands for the missing ones.
_IPV6 = "|".join(
    [
        rf"(?:{_H16}:){{7}}{_H16}",
        *(rf"(?:{_H16}:){{{left}}}(?::{_H16}){{1,{7 - left}}}" for left in range(1, 7)),
        rf"(?:{_H16}:){{1,7}}:",
        rf":(?:(?::{_H16}){{1,7}}|:)",
    ]
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_URI = rf"[A-Za-z][A-Za-z0-9+.-]*://(?:[^\s/@]+@)?(?:{_HOST}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?(?:[/?#]\S*)?"
_LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = (
    r"[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    rf"|{_LEAP}-02-29"
)

_PATTERNS = {
    "email": rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})+",
    "uri": _URI,
    "url": _URI,
    "hostname": _HOST,
    "uuid": r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}",
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "ip": rf"{_IPV4}|{_IPV6}",
    "iban": r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}",  # the shape; the check digits are not computed
    "date": _DATE,  # ISO 8601, a day that exists
    "phone": r"\+[1-9][0-9]{6,14}",  # E.164
}
_LISTS = ("country", "currency")  # ISO 3166-1 alpha-2, ISO 4217
NAMES = (*_PATTERNS, *_LISTS)


@cache
def pattern(name: str) -> str:
    """Return the RE2 pattern of a format, anchored at both ends; `name` is one of `NAMES`."""
    return f"^(?:{_PATTERNS[name] if name in _PATTERNS else '|'.join(_codes(name))})$"


def _codes(name: str) -> list[str]:
    import pycountry

    if name == "country":
        return sorted(country.alpha_2 for country in pycountry.countries)
    return sorted(currency.alpha_3 for currency in pycountry.currencies)
