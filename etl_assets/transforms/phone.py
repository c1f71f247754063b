"""Telephone numbers as E.164, by the numbering plans of the phonenumbers package, in SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import ibis
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.parameters.conversions import Phone
from etl_assets.transforms.projection import Staged
from etl_resources.exceptions import ConfigurationError

_DIGITS = "".join(chr(zero + n) for zero in (0xFF10, 0x660, 0x6F0, 0x966) for n in range(10)) + "＋"
_ASCII_DIGITS = "0123456789" * 4 + "+"
_EXTENSION = (
    r"(?i)\s*(?:;\s*ext=|[,;]?\s*(?:extension|extn|ext|x|#|durchwahl|poste|доб|anexo)[.:]?\s*)([0-9]{1,9})#?\s*$"
)
_SHAPE = r"(?i)(?:tel:)?[-+0-9\s().·/‐-―−\x{a0}\x{2007}\x{202f}\x{2060}\x{200b}]*"


def phone(text: ir.StringValue, parameters: Phone) -> Staged:
    """Return `+`, calling code and number, and `;ext=` where there is an extension; NULL when that is not possible.

    Possible is what the numbering plan has in length; whether a number is in use, nobody can tell from its digits.
    """
    [text] = yield [fn.translate(fn.trim(text), _DIGITS, _ASCII_DIGITS)]
    main, extension = yield [
        text.re_replace(_EXTENSION, "").re_replace(_zero_in_brackets(), r"\1"),
        text.re_extract(_EXTENSION, 1),
    ]
    digits, plus = yield [
        ibis.cases((fn.full_match(main, _SHAPE), main.re_replace("[^0-9]", ""))),
        main.re_search(r"(?i)^(?:tel:)?[\s(]*\+"),
    ]
    if parameters.region is None:
        full = ibis.cases((plus, digits), (digits.startswith("00"), digits.substr(2)))
    else:
        plan = _plan(parameters.region)
        coded = digits.re_replace(f"^{plan.country_code}", "")
        shorter = yield [_without_trunk(digits, plan), coded, _without_trunk(coded, plan)]
        full = _in_full(digits, plus, shorter, plan)
    [number] = yield [full.re_replace(_trunk_zero(), r"\1\2")]
    suffix = ibis.cases((extension != "", ibis.literal(";ext=") + extension), else_="")
    return ibis.cases((fn.full_match(number, _possible()), ibis.literal("+") + number + suffix))


def _in_full(
    digits: ir.StringValue, plus: ir.BooleanValue, shorter: list[ir.StringValue], plan: _Plan
) -> ir.StringValue:
    """Return calling code and number of digits that are written in the way of a region.

    `shorter`: the digits without trunk prefix, without calling code, and without both.
    """
    national, coded, bare = shorter
    code, pattern = str(plan.country_code), plan.pattern
    is_national, coded_is = fn.full_match(digits, pattern), fn.full_match(coded, pattern)
    too_long = digits.length() > max(plan.lengths)
    has_code = digits.startswith(code) & ((~is_national & (coded_is | fn.full_match(bare, pattern))) | too_long)
    abroad = f"^(?:{plan.abroad})([1-9])"
    return ibis.cases(
        (plus, digits),
        (digits.re_search(abroad), digits.re_replace(abroad, _last_group(abroad))),
        (has_code & coded_is & ~fn.full_match(bare, pattern), ibis.literal(code) + coded),
        (has_code, ibis.literal(code) + bare),
        (is_national & ~fn.full_match(national, pattern), ibis.literal(code) + digits),
        else_=ibis.literal(code) + national,
    )


def _without_trunk(digits: ir.StringValue, plan: _Plan) -> ir.StringValue:
    """Take off the prefix of calls within the country; some countries put another one in its place."""
    prefix = plan.trunk
    if not prefix:
        return digits
    stripped = digits.re_replace(f"^(?:{prefix})", "")
    rule = plan.trunk_becomes
    if not rule:
        return stripped
    captured = digits.re_extract(f"^(?:{prefix})", re.compile(prefix).groups) != ""
    return ibis.cases((captured, digits.re_replace(f"^(?:{prefix})", rule)), else_=stripped)


def _last_group(pattern: str) -> str:
    return f"\\{re.compile(pattern).groups}"


@dataclass(frozen=True)
class _Plan:
    """What the numbering plan of a region says; patterns are regular expressions over digits."""

    country_code: int
    pattern: str
    lengths: tuple[int, ...]
    abroad: str
    trunk: str | None
    trunk_becomes: str | None
    has_trunk_zero: bool


@lru_cache
def _plan(region: str, code: int = 0) -> _Plan:
    from phonenumbers import PhoneMetadata

    found = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    if found is None or found.general_desc is None:
        raise ConfigurationError(f"there is no numbering plan of region {region}", fix="use an ISO 3166 code")
    return _Plan(
        country_code=found.country_code or code,
        pattern=found.general_desc.national_number_pattern or "",
        lengths=tuple(found.general_desc.possible_length),
        abroad=found.international_prefix or "00",
        trunk=found.national_prefix_for_parsing,
        trunk_becomes=found.national_prefix_transform_rule,
        has_trunk_zero=found.national_prefix == "0" and not found.leading_zero_possible,
    )


@lru_cache
def _plans() -> dict[int, list[_Plan]]:
    """Return calling code -> numbering plans, that of the main region first."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

    return {code: [_plan(region, code) for region in regions] for code, regions in COUNTRY_CODE_TO_REGION_CODE.items()}


@lru_cache
def _possible() -> str:
    """Return a pattern of calling codes, each with the lengths that its numbers have."""
    plans = []
    for code, found in _plans().items():
        lengths = sorted(found[0].lengths)
        first = "[1-9]" if code in _never_zero() else "[0-9]"
        plans.append(f"{code}{first}(?:{'|'.join(f'[0-9]{{{length - 1}}}' for length in lengths)})")
    return "|".join(plans)


@lru_cache
def _trunk_zero() -> str:
    """Return a pattern of a zero too many, +44 020: no number of the country starts with 0."""
    return rf"^({'|'.join(map(str, _never_zero()))})0([1-9])"


@lru_cache
def _never_zero() -> tuple[int, ...]:
    return tuple(
        code
        for code in _with_trunk_zero()
        if not any(re.match(plan.pattern, "0" * length) for plan in _plans()[code] for length in plan.lengths)
    )


@lru_cache
def _zero_in_brackets() -> str:
    """Return a pattern of the zero in +44 (0)20, which is for calls from within the country."""
    return rf"^((?i:tel:)?[\s(]*\+[\s(]*(?:{'|'.join(map(str, _with_trunk_zero()))})[\s)]*)\(0\)"


def _with_trunk_zero() -> list[int]:
    return [code for code, found in _plans().items() if all(plan.has_trunk_zero for plan in found)]
