"""Cleaning of text: each function gives back, for what it gave back, the same."""

from __future__ import annotations

import re

import ibis
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.parameters import Parameters
from etl_assets.transforms.parameters.cleaning import NullTokens, Synonyms
from etl_assets.transforms.projection import Staged

_NOT_A_SPACE = r"[\t\n\f\r\x0b\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
_ZERO_WIDTH = r"[\x{ad}\x{180e}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2064}\x{2066}-\x{2069}\x{feff}]"
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]"
_JOINERS = r"[\x{200c}\x{200d}]+"


def trim(text: ir.StringValue, _: Parameters) -> ir.StringValue:
    """Remove white space from both ends."""
    return fn.trim(text)


def collapse_whitespace(text: ir.StringValue, _: Parameters) -> ir.StringValue:
    """Make every run of white space one space."""
    return fn.where_found(text, f"  |{_NOT_A_SPACE}", text.re_replace(f"{fn.WHITE_SPACE}+", " "))


def lower(text: ir.StringValue, _: Parameters) -> ir.StringValue:
    """Lower case."""
    return text.lower()


def upper(text: ir.StringValue, _: Parameters) -> ir.StringValue:
    """Upper case."""
    return text.upper()


def nfc(text: ir.StringValue, _: Parameters) -> ir.StringValue:
    """Compose Unicode."""
    composed: ir.StringValue = fn.nfc_normalize(text)
    return composed


def strip_control(text: ir.StringValue, _: Parameters) -> ir.StringValue:
    """Remove characters that do not show; joiners stay where both neighbours are beyond ASCII."""
    shown = text.re_replace(f"{_CONTROL}|{_ZERO_WIDTH}", "")
    joined = shown.re_replace(rf"(^|[\x00-\x7f]){_JOINERS}", r"\1").re_replace(rf"{_JOINERS}($|[\x00-\x7f])", r"\1")
    return fn.where_found(text, f"{_CONTROL}|{_ZERO_WIDTH}|{_JOINERS}", joined)


def null_tokens(text: ir.StringValue, parameters: NullTokens) -> ir.StringValue:
    """Make tokens NULL; other text stays as it is, its white space included."""
    tokens = "|".join(re.escape(token.strip()) for token in parameters.tokens)
    nothing = fn.full_match(text, f"{fn.WHITE_SPACE}*(?:{tokens}){fn.WHITE_SPACE}*")
    return ibis.cases((nothing, ibis.null("string")), else_=text)


def synonyms(text: ir.StringValue, parameters: Synonyms) -> Staged:
    """Return the word that a spelling stands for, or NULL."""
    key = fn.trim(text)
    [key] = yield [key.lower() if parameters.ignore_case else key]
    return ibis.cases(*_branches(key, parameters.spellings()), else_=ibis.null("string"))


def _branches(key: ir.StringValue, words: dict[str, str]) -> list[tuple[ir.BooleanValue, str]]:
    spellings: dict[str, list[str]] = {}
    for spelling, word in words.items():
        spellings.setdefault(word, []).append(spelling)
    return [(key.isin(same), word) for word, same in spellings.items()]
