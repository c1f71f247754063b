"""Customers: a CSV file as three branches and a call centre fill it in, and what each record means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from etl_assets.demo.retail import vocabulary as words
from etl_assets.demo.retail.columns import (
    Flags,
    Ints,
    Text,
    choose,
    clock,
    csv_lines,
    days,
    deal,
    joined,
    moments,
    padded,
    pick,
    quoted,
)
from etl_assets.demo.retail.records import BAD_VERSION, UNREADABLE, VERSION, Records, lay_out

COLUMNS = (
    "customer_id", "first_name", "last_name", "email", "phone", "address", "country", "segment", "registration_date",
    "updated_at",
)  # fmt: skip

KINDS = {
    "id blank": (0.002, "rejected:key.customer_id"),
    "id not usable": (0.001, "rejected:pattern.customer_id"),
    "segment not declared": (0.004, "rejected:allowed.segment"),
    "date impossible": (0.002, "rejected:date.registered_on"),
    "test record": (0.004, "filtered:not_a_test"),
    "line too long": (0.001, UNREADABLE),
    "line too short": (0.001, UNREADABLE),
}
TEST_DOMAIN = "@test.invalid"

_ZERO_WIDTH, _ACUTE = "\u200b", "\u0301"
_FIRST_DAY, _LAST_DAY = 18_993, 20_088  # 2022-01-01, 2024-12-31
_FIRST_UPDATE = 1_735_689_600  # 2025-01-01


@dataclass(frozen=True)
class Customers:
    """The customers file and its truth; every column has one entry per record, in the order of the file."""

    records: Records
    lines: Text
    numbers: Ints
    segment: Ints
    silver: pa.Table
    """What silver must hold of a record, if it is kept."""
    invalid_emails: Flags
    not_e164: Flags
    """Records that a warning must name, if they are kept."""


def make(rng: np.random.Generator, rows: int) -> Customers:
    """Make `rows` customer records."""
    records = lay_out(rng, rows, KINDS, bad_version="rejected:date.registered_on")
    number = records.thing + 1
    newer = records.are(VERSION, BAD_VERSION)
    first = _names(rng, records, words.FIRST_NAMES)
    last = _names(rng, records, words.LAST_NAMES + words.MIXED_CASE_NAMES)
    email, clean_email, invalid_email = _emails(rng, records, number)
    phone, clean_phone, not_e164 = _phones(rng, records)
    country, clean_country = _spelled(rng, records, words.COUNTRY_SPELLINGS, words.COUNTRIES)
    spelling = rng.permutation(np.arange(records.things) % len(words.SEGMENT_SPELLINGS))[records.thing]
    spelling = (spelling + 7 * newer) % len(words.SEGMENT_SPELLINGS)  # a newer version is in another segment
    segment = np.array([index for _, index in words.SEGMENT_SPELLINGS])[spelling]
    registered = rng.integers(_FIRST_DAY, _LAST_DAY, records.things)[records.thing]
    updated = rng.integers(_FIRST_UPDATE, _FIRST_UPDATE + 90 * 86_400, records.things)[records.thing] + 86_400 * newer
    address, clean_address = _addresses(rng, records)
    segment_text = pick([text for text, _ in words.SEGMENT_SPELLINGS], spelling)
    fields = {
        "customer_id": _ids(rng, records, number),
        "first_name": first[0],
        "last_name": last[0],
        "email": email,
        "phone": phone,
        "address": quoted(address),
        "country": country,
        "segment": pc.if_else(records.are("segment not declared"), words.UNDECLARED_SEGMENT, segment_text),
        "registration_date": _dates(rng, records, registered),
        "updated_at": clock(updated),
    }
    silver = pa.table(
        {
            "customer_id": joined("C", padded(number, 6)),
            "first_name": first[1],
            "last_name": last[1],
            "email": clean_email,
            "phone": clean_phone,
            "address": clean_address,
            "country_code": clean_country,
            "segment": pick(words.SEGMENTS, segment),
            "registered_on": days(registered),
            "updated_at": moments(updated),
        }
    )
    lines = csv_lines(
        [fields[name] for name in COLUMNS],
        too_long=records.are("line too long"),
        too_short=records.are("line too short"),
    )
    return Customers(records, lines, number, segment, silver, invalid_email, not_e164)


def _ids(rng: np.random.Generator, records: Records, number: Ints) -> Text:
    style = deal(rng, len(number), {"long": 0.03, "dash": 0.02, "lower": 0.01}, rest="plain")
    text = choose(style, _id_styles(number), joined("C", padded(number, 6)))
    text = pc.if_else(records.are("id blank"), pa.scalar(None, pa.string()), text)
    return pc.if_else(records.are("id not usable"), "unknown", text)


def _id_styles(number: Ints) -> dict[str, Text]:
    return {
        "long": joined("CUST", padded(number, 4)),
        "dash": joined("C-", padded(number, 5)),
        "lower": joined(" c", padded(number, 6)),
    }


def foreign_ids(style: npt.NDArray[Any], number: Ints) -> Text:
    """Customer ids as another system writes them: `style` is long, dash, lower or plain per row."""
    return choose(style, _id_styles(number), joined("C", padded(number, 6)))


def _names(rng: np.random.Generator, records: Records, names: tuple[str, ...]) -> tuple[Text, Text]:
    index = rng.integers(0, len(names), records.things)[records.thing]
    clean = pick(names, index)
    mixed = np.isin(index, [names.index(name) for name in names if not name.istitle() or "'" in name])
    shares = {"upper": 0.01, "lower": 0.01, "padded": 0.02, "invisible": 0.01, "decomposed": 0.05, "blank": 0.008}
    style = deal(rng, records.things, shares, rest="plain")[records.thing]
    style[mixed & np.isin(style, ["upper", "lower"])] = "plain"  # nobody could tell Mcdonald from McDonald then
    raw = choose(
        style,
        {
            "upper": pc.utf8_upper(clean),
            "lower": pc.utf8_lower(clean),
            "padded": joined("  ", clean, " "),
            "invisible": joined(clean, _ZERO_WIDTH),
            "decomposed": pc.utf8_normalize(clean, "NFD"),
            "blank": pa.nulls(len(clean), pa.string()),
        },
        clean,
    )
    return raw, pc.if_else(style == "blank", pa.scalar(None, pa.string()), clean)


def _emails(rng: np.random.Generator, records: Records, number: Ints) -> tuple[Text, Text, Flags]:
    clean = joined("customer.", padded(number, 1), "@example.com")
    shares = {"upper": 0.01, "padded": 0.02, "blank": 0.014, "no at": 0.015, "hash": 0.01}
    style = deal(rng, records.things, shares, rest="plain")[records.thing]
    broken = {
        "no at": pc.replace_substring(clean, "@", ""),
        "hash": pc.replace_substring(clean, "@", "#"),
        "blank": pa.nulls(len(clean), pa.string()),
    }
    tidy = {"upper": pc.utf8_upper(clean), "padded": joined("  ", clean, "  ")}
    raw = choose(style, broken | tidy, clean)
    test = joined("nobody", padded(number, 1), TEST_DOMAIN)
    raw = pc.if_else(records.are("test record"), test, raw)
    return raw, choose(style, broken, clean), np.isin(style, ["no at", "hash"])


def _phones(rng: np.random.Generator, records: Records) -> tuple[Text, Text, Flags]:
    area = pick(words.AREA_CODES, rng.integers(0, len(words.AREA_CODES), records.things)[records.thing])
    last = padded(rng.integers(100, 200, records.things)[records.thing], 4)  # 555-0100 to 555-0199 belong to nobody
    british = padded(rng.integers(0, 1000, records.things)[records.thing], 3)  # and so do 020 7946 0000 to 0999
    american = joined("+1", area, "555", last)
    london = joined("+44207946", "0", british)
    formats = {
        "digits": (joined(area, "555", last), american),
        "dashes": (joined(area, "-555-", last), american),
        "with 1": (joined("1-", area, "-555-", last), american),
        "plus 1": (joined("+1 ", area, " 555 ", last), american),
        "dots": (joined(area, ".555.", last), american),
        "plus 44": (joined("+44 20 7946 0", british), london),
        "dialled": (joined("011 44 20 7946 0", british), london),
        "extension": (joined("(", area, ") 555-", last, " ext. 42"), joined(american, ";ext=42")),
        "vanity": (joined("555-CALL"), joined("555-CALL")),
        "short": (british, british),
        "blank": (None, None),
    }
    style = deal(rng, records.things, dict.fromkeys(formats, 0.02), rest="brackets")[records.thing]
    nothing = pa.nulls(len(style), pa.string())
    raw = {name: nothing if text is None else text for name, (text, _) in formats.items()}
    clean = {name: nothing if text is None else text for name, (_, text) in formats.items()}
    brackets = joined("(", area, ") 555-", last)
    return choose(style, raw, brackets), choose(style, clean, american), np.isin(style, ["vanity", "short"])


def _spelled(
    rng: np.random.Generator, records: Records, spellings: tuple[tuple[str, int], ...], terms: tuple[str, ...]
) -> tuple[Text, Text]:
    index = rng.permutation(np.arange(records.things) % len(spellings))[records.thing]
    meaning = np.array([term for _, term in spellings])[index]
    return pick([text for text, _ in spellings], index), pick(terms, meaning)


def _dates(rng: np.random.Generator, records: Records, registered: Ints) -> Text:
    column = days(registered)
    style = deal(rng, len(registered), {"american": 0.02, "written": 0.02}, rest="iso")
    variants = {"american": pc.strftime(column, "%m/%d/%Y"), "written": pc.strftime(column, "%d-%b-%Y")}
    text = choose(style, variants, pc.strftime(column, "%Y-%m-%d"))
    return pc.if_else(records.are("date impossible", BAD_VERSION), "2024-02-30", text)


def _addresses(rng: np.random.Generator, records: Records) -> tuple[Text, Text]:
    house = padded(rng.integers(1, 2000, records.things)[records.thing], 1)
    street = pick(words.STREETS, rng.integers(0, len(words.STREETS), records.things)[records.thing])
    town = pick(words.TOWNS, rng.integers(0, len(words.TOWNS), records.things)[records.thing])
    one_line = joined(house, " ", street, ", ", town)
    style = deal(rng, records.things, {"two lines": 0.01, "with a name": 0.01}, rest="plain")[records.thing]
    two_lines = joined(house, " ", street, "\n", town)
    named = joined('"The Elms", ', one_line)
    return (
        choose(style, {"two lines": two_lines, "with a name": named}, one_line),
        choose(style, {"two lines": joined(house, " ", street, " ", town), "with a name": named}, one_line),
    )
