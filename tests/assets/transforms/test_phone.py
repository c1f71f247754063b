"""Phone numbers in SQL against the phonenumbers package, which is the reference and works on one number at a time."""

from __future__ import annotations

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat as Written

from etl_assets.transforms import apply_steps, parse_steps
from tests.assets.transforms.casebook import Bench, Table
from tests.soaking import some

REGIONS = ["US", "CA", "GB", "DE", "FR", "IT", "ES", "AT", "CH", "PL", "RU", "BR", "AR", "MX", "IN", "CN", "JP", "KR",
           "NZ", "ZA", "EG", "TR", "SE", "HU", "DO", "KZ"]  # fmt: skip
KINDS = [
    phonenumbers.PhoneNumberType.FIXED_LINE,
    phonenumbers.PhoneNumberType.MOBILE,
    phonenumbers.PhoneNumberType.TOLL_FREE,
]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def spellings(region: str) -> list[str]:
    found = []
    for kind in KINDS:
        number = phonenumbers.example_number_for_type(region, kind)
        if number is None:
            continue
        national = phonenumbers.national_significant_number(number)
        found += [phonenumbers.format_number(number, written) for written in
                  (Written.E164, Written.INTERNATIONAL, Written.NATIONAL, Written.RFC3966)]  # fmt: skip
        found += [national, f"{number.country_code}{national}", f"+{number.country_code} ({national})"]
        found += [f"+{number.country_code}-{national} ext. 42"]
        if (
            not number.italian_leading_zero
            and phonenumbers.PhoneMetadata.metadata_for_region(region).national_prefix == "0"
        ):
            found.append(f"+{number.country_code} (0){national}")
    return found


def reference(text: str, region: str) -> str:
    number = phonenumbers.parse(text, region)
    extension = f";ext={number.extension}" if number.extension else ""
    return phonenumbers.format_number(number, Written.E164) + extension


@pytest.mark.parametrize("region", some(REGIONS, 12))
def test_sql_agrees_with_the_reference(bench: Bench, region: str) -> None:
    texts = spellings(region)
    assert len(texts) > 15
    table = bench.load("given", Table({"v": "string"}, [[text] for text in texts]))
    [step] = parse_steps([{"phone": {"column": "v", "region": region}}], layer="silver", where="x")
    found = [row["v"] for row in bench.run(apply_steps(table, [step]))]
    assert dict(zip(texts, found, strict=True)) == {text: reference(text, region) for text in texts}


def test_numbers_of_impossible_length_are_kept_as_they_came(bench: Bench) -> None:
    texts = ["+1524310911", "+152431091199", "+4420794", "+0123456789", "+4420794609581234"]
    for text in texts[:-2]:
        reason = phonenumbers.is_possible_number_with_reason(phonenumbers.parse(text, None))
        assert reason != phonenumbers.ValidationResult.IS_POSSIBLE
    table = bench.load("given", Table({"v": "string"}, [[text] for text in texts]))
    [step] = parse_steps([{"phone": ["v"]}], layer="silver", where="x")
    assert [row["v"] for row in bench.run(apply_steps(table, [step]))] == texts
