"""Cleaning what is clean changes nothing: for any text, not only for the cases that someone thought of."""

from __future__ import annotations

import functools
import random
from typing import Any

import ibis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from etl_assets.transforms import apply_steps, parse_steps
from tests.assets.transforms.casebook import Bench, Table
from tests.soaking import examples

STEPS: dict[str, Any] = {
    "trim": {"trim": ["v"]},
    "collapse_whitespace": {"collapse_whitespace": ["v"]},
    "lower": {"lower": ["v"]},
    "upper": {"upper": ["v"]},
    "title": {"title": ["v"]},
    "nfc": {"nfc": ["v"]},
    "strip_control": {"strip_control": ["v"]},
    "strip_html": {"strip_html": ["v"]},
    "null_tokens": {"null_tokens": ["v"]},
    "synonyms": {"synonyms": {"column": "v", "values": {"a": ["b"], "İ": ["ß"]}}},
    "phone": {"phone": {"column": "v", "region": "US"}},
    "email": {"email": ["v"]},
    "country": {"country": {"column": "v", "on_error": "keep"}},
    "currency": {"currency": {"column": "v", "on_error": "keep"}},
}
SNIPPETS = ["<b>", "</", "<", ">", "&lt;", "&amp;", "&gt;", "&quot;", "<!--", "-->", "script", "/", "!", "?", ";",
            " ", "\t", "\u00a0", "\u200b", "\u200d", "\ufeff", "e\u0301", "İ", "ı", "ß", "ŉ", "ǆ", "Σ", "ς", "ﬁ",
            "mc", "McD", "o'", "’", "van", "DER", "III", "+", "(0)", "44", "00", "x12", ";ext=", "@", ".", "N/A", "-",
            "a", "B", "👩", "שלום", "5"]  # fmt: skip
TEXT = st.one_of(
    st.lists(st.sampled_from(SNIPPETS), max_size=9).map("".join),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.from_regex(r"\A\+?[0-9 ()./-]{5,18}( ?x[0-9]{1,4})?\Z"),
)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def sql_of(step: Any, times: int) -> str:
    steps = parse_steps([step] * times, layer="silver", where="x")
    table = ibis.table({"v": "string", "_row": "int64"}, name="given")
    return str(ibis.to_sql(apply_steps(table, steps).table, dialect="duckdb"))


@functools.cache
def queries() -> dict[str, tuple[str, str]]:
    """Return step -> its SQL, applied once and twice."""
    return {name: (sql_of(step, 1), sql_of(step, 2)) for name, step in STEPS.items()}


def test_cleaning_clean_text_changes_nothing(bench: Bench) -> None:
    """A few texts, of the pieces that are odd."""
    chance, changed = random.Random(1), []
    texts = ["".join(chance.choices(SNIPPETS, k=chance.randint(1, 6))) for _ in range(150)]
    for name, step in STEPS.items():
        cleaned, sql = [(text,) for text in texts], sql_of(step, 1)
        for _ in range(2):
            given = cleaned
            bench.load("given", Table({"v": "string"}, [list(row) for row in given]))
            cleaned = bench.connection.execute(f"SELECT v FROM ({sql}) ORDER BY _row").fetchall()
        changed += [(name, *values) for values in zip(given, cleaned, strict=True) if values[0] != values[1]]
    assert changed == []


@pytest.mark.soak
@settings(
    max_examples=examples(3),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # the text that fails is told, so need not be shrunk
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(texts=st.lists(TEXT, min_size=25, max_size=40))
def test_cleaning_any_text_twice_is_cleaning_it_once(bench: Bench, texts: list[str]) -> None:
    bench.load("given", Table({"v": "string"}, [[text] for text in texts]))
    changed = []
    for name, both in queries().items():
        once, twice = (bench.connection.execute(f"SELECT v FROM ({sql}) ORDER BY _row").fetchall() for sql in both)
        changed += [(name, *values) for values in zip(texts, once, twice, strict=True) if values[1] != values[2]]
    assert changed == []
