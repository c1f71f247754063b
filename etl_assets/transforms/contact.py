"""E-mail addresses, countries and currencies in one way of writing."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import ibis
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.expression import sql_value
from etl_assets.transforms.parameters.conversions import Country, Currency, Email
from etl_assets.transforms.projection import Staged
from etl_resources.exceptions import ConfigurationError

_LOCAL = r"[^\s@\"(),:;<>\[\]\\.]+(?:\.[^\s@\"(),:;<>\[\]\\.]+)*"
_LABEL = r"[\p{L}\p{M}\p{N}](?:[\p{L}\p{M}\p{N}-]*[\p{L}\p{M}\p{N}])?"
_ADDRESS = rf"{_LOCAL}@(?:{_LABEL}\.)+(?:[\p{{L}}\p{{M}}]{{2,}}|xn--[a-z0-9-]+)"
_LONG_LABEL = r"@.*[^.@]{64}"  # not counted in the address: RE2 would spend 0.2 s on compiling that
_LONGEST_LOCAL, _LONGEST = 64, 254


def email(text: ir.StringValue, _: Email) -> Staged:
    """Return the address in lower case, or NULL; RFC 5321 lengths, no quoted local parts."""
    [address] = yield [fn.trim(fn.nfc_normalize(fn.nfc_normalize(text).lower()).re_replace(r"^\s*mailto:", ""))]
    short = (address.length() <= _LONGEST) & (address.find("@") <= _LONGEST_LOCAL) & ~address.re_search(_LONG_LABEL)
    return ibis.cases((short & fn.full_match(address, _ADDRESS), address))


def country(text: ir.StringValue, parameters: Country) -> ir.StringValue:
    """Return the country as ISO 3166 writes it, or NULL."""
    words = dict(_countries(parameters.to))
    _extend(words, parameters.also)
    return _look_up(text, words)


def currency(text: ir.StringValue, parameters: Currency) -> ir.StringValue:
    """Return the ISO 4217 code, or NULL."""
    words = dict(_currencies())
    _extend(words, parameters.also)
    return _look_up(text, words)


def _look_up(text: ir.StringValue, words: dict[str, str]) -> ir.StringValue:
    key = fn.trim(fn.nfc_normalize(text)).lower().re_replace(f"{fn.WHITE_SPACE}+", " ")
    # two literals instead of hundreds: DuckDB makes the map once, while it plans
    spellings, written = "\n".join(words), "\n".join(words.values())
    table = "map(string_split(spellings, chr(10)), string_split(written, chr(10)))"
    found: ir.StringValue = sql_value(f"{table}[key]", "string", spellings=spellings, written=written, key=key)
    return found


def _extend(words: dict[str, str], also: dict[str, tuple[str, ...]]) -> None:
    for code, spellings in also.items():
        if _key(code) not in words:
            raise ConfigurationError(
                f"{code!r} is not a code that the standard knows", fix="use the ISO code as the key"
            )
        for spelling in spellings:
            if words.get(_key(spelling), words[_key(code)]) != words[_key(code)]:
                raise ConfigurationError(f"{spelling!r} stands for {words[_key(spelling)]!r} already, not for {code!r}")
        words |= {_key(spelling): words[_key(code)] for spelling in spellings}


@lru_cache
def _countries(to: str) -> tuple[tuple[str, str], ...]:
    import pycountry

    fields = ("alpha_2", "alpha_3", "numeric", "name", "official_name", "common_name")
    return _spellings(pycountry.countries, fields, to)


@lru_cache
def _currencies() -> tuple[tuple[str, str], ...]:
    import pycountry

    return _spellings(pycountry.currencies, ("alpha_3", "numeric", "name"), "alpha_3")


def _spellings(records: Iterable[Any], fields: tuple[str, ...], to: str) -> tuple[tuple[str, str], ...]:
    """Return (spelling, what is written for it), with and without accents; a spelling of two records is left out."""
    found: dict[str, set[str]] = {}
    for record in records:
        for field in fields:
            name = getattr(record, field, None)
            for spelling in {_key(name), _key(_without_accents(name))} if name else ():
                found.setdefault(spelling, set()).add(getattr(record, to))
    return tuple((spelling, written.pop()) for spelling, written in found.items() if len(written) == 1)


def _key(spelling: str) -> str:
    return " ".join(unicodedata.normalize("NFC", spelling).lower().split())


def _without_accents(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))
