"""Capitalised words, without harm to names that someone has capitalised already."""

from __future__ import annotations

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.expression import sql_value
from etl_assets.transforms.parameters.cleaning import Title

_TOKENS = r"[\p{L}\p{M}\p{N}]+(?:[''’][\p{L}\p{M}]+)*|[^\p{L}\p{M}\p{N}]+"
"""Words and what is between them; the quote is doubled for SQL."""
_CLEAN = r"(?:[A-Z][a-z]+[ .-]?)*"
"""Most values: nothing to do."""
_APOSTROPHE = r"[\p{L}\p{M}][''’]\p{L}[\p{L}\p{M}]{2,}"
"""O'Brien, not we've; the quote is doubled for SQL."""
_ROMAN = r"(?:II|III|IV|VI|VII|VIII|IX)"
_PARTICLES = ("bin", "da", "das", "de", "del", "della", "den", "der", "di", "do", "dos", "du", "ibn", "la", "le", "ter",
              "van", "von", "zu", "zum", "zur")  # fmt: skip


def title(text: ir.StringValue, parameters: Title) -> ir.StringValue:
    """Capitalise words that are all lower or all upper case; words in mixed case are left alone."""
    cased = f"list_transform(tokens, lambda word, place: {_capitalised(parameters.keep)})"
    joined = f"list_transform([regexp_extract_all(text, '{_TOKENS}')], lambda tokens: array_to_string({cased}, ''))[1]"
    changed = sql_value(joined, "string", text=text)
    return ibis.cases((fn.full_match(text, _CLEAN), text), else_=changed)


def _capitalised(keep: tuple[str, ...]) -> str:
    """Return the SQL of a word in title case; `place` counts from 1, and what is between words are tokens too."""
    particle = f"lower(word) IN {_texts(_PARTICLES)} AND place < len(tokens)"
    kept = f"WHEN word IN {_texts(keep)} THEN word" if keep else ""
    return f"""CASE {kept}
        WHEN word <> lower(word) AND word <> upper(word) THEN word
        WHEN regexp_full_match(word, '{_ROMAN}') THEN word
        WHEN {particle} AND word = lower(word) THEN word
        WHEN {particle} AND place > 1 THEN lower(word)
        WHEN regexp_full_match(lower(word), 'mc[a-z]{{3,}}') THEN 'Mc' || upper(word[3]) || lower(word[4:])
        WHEN regexp_full_match(word, '{_APOSTROPHE}')
        THEN upper(word[1]) || word[2] || upper(word[3]) || lower(word[4:])
        ELSE upper(word[1]) || lower(word[2:])
    END"""


def _texts(words: Sequence[str]) -> str:
    return "(" + ", ".join("'" + word.replace("'", "''") + "'" for word in words) + ")"
