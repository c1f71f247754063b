from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from etl_checks.contract import Contract, load_contract
from etl_checks.lint import lint_contract
from etl_resources.exceptions import ConfigurationError, NotFoundError

HERE = Path(__file__).parent / "contracts"
ORDERS = load_contract(HERE / "orders.odcs.yaml")
PEOPLE = yaml.safe_load((HERE / "people.odcs.yaml").read_text())


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["case"]) for case in yaml.safe_load((HERE / name).read_text())]


def write(folder: Path, document: Any) -> Path:
    file = folder / "people.odcs.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return file


def changed(case: dict[str, Any]) -> Any:
    document = copy.deepcopy(PEOPLE)
    parent, node = None, document
    for step in case["at"]:
        parent, node = node, node[step]
    if "append" in case:
        node.append(case["append"])
    elif "unset" in case:
        del parent[case["at"][-1]]
    elif isinstance(case["set"], dict):
        node.update(case["set"])
    else:
        parent[case["at"][-1]] = case["set"]
    return document


@pytest.mark.parametrize("case", cases("one_mistake.yaml"))
def test_a_mistake_is_reported_once_where_it_is(case: dict[str, Any], tmp_path: Path) -> None:
    file = write(tmp_path, changed(case))
    with pytest.raises(ConfigurationError) as caught:
        load_contract(file)
    heading, line = caught.value.what.split("\n")
    assert heading == "1 mistake in the contract people.odcs.yaml"
    assert case["place"] in line
    assert case["says"] in line
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("case", cases("engine_mistakes.yaml"))
def test_what_an_engine_must_judge_is_left_to_the_lint(case: dict[str, Any], tmp_path: Path) -> None:
    document = copy.deepcopy(PEOPLE)
    if "pattern" in case:
        document["schema"][0]["properties"][1]["logicalTypeOptions"] = {"pattern": case["pattern"]}
    else:
        rule = {"id": "x", "type": "sql", "query": case["sql"], "mustBe": 0}
        document["schema"][0]["quality"].append(rule)
    contract = load_contract(write(tmp_path, document))
    with pytest.raises(ConfigurationError) as caught:
        lint_contract(contract)
    assert caught.value.what.startswith("1 mistake")
    assert case["says"] in caught.value.what
    assert "quality[x]" in caught.value.what or "logicalTypeOptions.pattern" in caught.value.what


def test_nine_mistakes_are_found_at_once_with_their_lines() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_contract(HERE / "nine_mistakes.odcs.yaml")
    heading, *lines = caught.value.what.split("\n")
    assert heading.startswith("9 mistakes")
    expected = [
        ("line 4, version", "no semantic version"),
        ("line 6, owner", "unknown key"),
        ("line 10, schema[orders].properties[order_id].requird", "did you mean 'required'?"),
        ("line 11, schema[orders].properties[reference].logicalType", "'uuid'"),
        ("line 12, schema[orders].properties[customer_id].relationships[0].to", "table.column"),
        ("line 13, schema[orders].properties[code].logicalTypeOptions.pattern", "not RE2"),
        ("line 17, schema[orders].properties[amount].quality[a].dimension", "'validity'"),
        ("line 18, schema[orders].properties[amount].quality[b]", "exactly one operator"),
        ("line 20, schema[orders].quality[c].metric", "'freshness'"),
    ]
    assert len(lines) == len(expected)
    for line, (place, words) in zip(lines, expected, strict=True):
        assert place in line
        assert words in line


def test_the_lint_passes_a_sound_contract() -> None:
    lint_contract(ORDERS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "not valid YAML"),
        ("", "a contract is a mapping"),
        ("- a", "a contract is a mapping"),
        ("id: a\nid: b\n", "comes a second time in line 2"),
        ("1: a\n", "is no text: quote it in line 1"),
    ],
)
def test_a_file_that_is_no_contract_is_refused_with_its_reason(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.odcs.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"broken\.odcs\.yaml") as caught:
        load_contract(file)
    assert says in caught.value.what


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere.yaml"):
        load_contract(tmp_path / "nowhere.yaml")


def test_types_are_those_that_are_written() -> None:
    assert ORDERS.duckdb_types() == {
        "order_id": "BIGINT",
        "customer_id": "INTEGER",
        "email": "VARCHAR",
        "status": "VARCHAR",
        "code": "VARCHAR",
        "amount": "DECIMAL(12,2)",
        "weight": "DOUBLE",
        "ordered_at": "TIMESTAMP WITH TIME ZONE",
        "shipped_at": "TIMESTAMP WITH TIME ZONE",
        "lines": 'STRUCT("sku" VARCHAR, "price" DECIMAL(9,3))[]',
    }
    schema = ORDERS.arrow_schema()
    assert schema.field("amount").type == pa.decimal128(12, 2)
    assert schema.field("ordered_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("lines").type == pa.list_(pa.struct([("sku", pa.string()), ("price", pa.decimal128(9, 3))]))
    assert schema.field("email").metadata == {
        b"description": b"Where the receipt goes",
        b"classification": b"restricted",
    }
    assert schema.field("lines").type.value_type.field("sku").metadata == {b"description": b"Article"}


def test_the_arrow_schema_is_what_duckdb_returns_for_its_own_types() -> None:
    import duckdb

    casts = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in ORDERS.duckdb_types().items())
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        assert connection.sql(f"SELECT {casts}").to_arrow_table().schema.equals(ORDERS.arrow_schema())


@pytest.mark.parametrize(
    ("column", "duckdb_type", "arrow"),
    [
        ({"logicalType": "timestamp"}, "TIMESTAMP", pa.timestamp("us")),
        ({"logicalType": "integer", "logicalTypeOptions": {"format": "i16"}}, "SMALLINT", pa.int16()),
        ({"logicalType": "integer", "physicalType": "decimal(38,0)"}, "DECIMAL(38,0)", pa.decimal128(38, 0)),
        ({"logicalType": "number", "logicalTypeOptions": {"format": "f32"}}, "FLOAT", pa.float32()),
        ({"logicalType": "string", "physicalType": "bytea"}, "BLOB", pa.binary()),
        ({"logicalType": "boolean"}, "BOOLEAN", pa.bool_()),
        ({"logicalType": "date"}, "DATE", pa.date32()),
        (
            {"logicalType": "map", "map": {"key": {"logicalType": "string"}, "value": {"logicalType": "integer"}}},
            "MAP(VARCHAR, BIGINT)",
            pa.map_(pa.string(), pa.int64()),
        ),
        (
            {"logicalType": "object", "properties": [{"name": 'a "b"', "logicalType": "date"}]},
            'STRUCT("a ""b""" DATE)',
            pa.struct([('a "b"', pa.date32())]),
        ),
    ],
)
def test_each_type_has_its_duckdb_and_arrow_form(
    column: dict[str, Any], duckdb_type: str, arrow: pa.DataType, tmp_path: Path
) -> None:
    document = copy.deepcopy(PEOPLE)
    document["schema"][0]["properties"].append({"name": "x", **column})
    contract = load_contract(write(tmp_path, document))
    assert contract.duckdb_types()["x"] == duckdb_type
    assert contract.arrow_schema().field("x").type == arrow


def test_a_date_needs_no_quotes_in_yaml(tmp_path: Path) -> None:
    text = (HERE / "people.odcs.yaml").read_text()
    file = tmp_path / "dates.odcs.yaml"
    file.write_text(text.replace("logicalType: date}", "logicalType: date, logicalTypeOptions: {minimum: 2020-02-29}}"))
    limits = [rule.params["minimum"] for rule in load_contract(file).rules if rule.kind == "range"]
    assert limits == ["2020-02-29"]


def test_owners_are_the_team_and_its_owners_who_have_not_left() -> None:
    assert ORDERS.owners == ("team:sales-data", "ada@example.org")


def test_key_foreign_keys_freshness_and_personal_columns_come_out() -> None:
    assert ORDERS.key == ("order_id",)
    (reference,) = ORDERS.foreign_keys
    assert (reference.columns, reference.table, reference.to_columns) == (
        ("customer_id",),
        "customers",
        ("customer_id",),
    )
    assert ORDERS.freshness is not None
    assert (ORDERS.freshness.column, ORDERS.freshness.seconds) == ("ordered_at", 86400)
    assert ORDERS.personal_columns == ("email",)


def test_personal_data_deep_inside_a_column_make_it_personal(tmp_path: Path) -> None:
    document = copy.deepcopy(PEOPLE)
    field = {
        "name": "street",
        "logicalType": "string",
        "customProperties": [{"property": "privacy", "value": {"mask": "hmac"}}],
    }
    items = {"logicalType": "object", "properties": [field]}
    document["schema"][0]["properties"].append({"name": "homes", "logicalType": "array", "items": items})
    assert load_contract(write(tmp_path, document)).personal_columns == ("homes",)


def test_the_composite_key_has_its_own_order(tmp_path: Path) -> None:
    document = copy.deepcopy(PEOPLE)
    document["schema"][0]["properties"][0]["primaryKeyPosition"] = 2
    document["schema"][0]["properties"][1].update(primaryKey=True, primaryKeyPosition=1)
    contract = load_contract(write(tmp_path, document))
    assert contract.key == ("name", "id")
    assert {rule.id for rule in contract.rules} >= {"required.id", "required.name", "unique.name+id"}


def handled(contract: Contract) -> dict[str, tuple[str, str]]:
    return {rule.id: (rule.severity, rule.on_fail) for rule in contract.rules}


def test_row_rules_reject_table_rules_fail_thresholds_fail_and_warnings_warn() -> None:
    assert handled(ORDERS) == {
        **dict.fromkeys(
            (
                "required.order_id",
                "foreign_key.customer_id",
                "format.email",
                "required.status",
                "allowed.status",
                "length.code",
                "pattern.code",
                "range.amount",
                "range.weight",
                "range.ordered_at",
                "shipped_after_ordered",
            ),
            ("error", "reject"),
        ),
        **dict.fromkeys(("unique.order_id", "unique.code", "enough_rows"), ("error", "fail")),
        **dict.fromkeys(("email_present", "once_a_moment"), ("warning", "warn")),
        "freshness.ordered_at": ("error", "warn"),
    }


def test_a_column_says_how_its_own_rules_are_handled(tmp_path: Path) -> None:
    document = copy.deepcopy(PEOPLE)
    document["schema"][0]["properties"][1] = {
        "name": "name",
        "logicalType": "string",
        "required": True,
        "unique": True,
        "relationships": [
            {"to": "other.name"},
            {
                "id": "second",
                "to": "pipeline.table.name",
                "customProperties": [{"property": "on_fail", "value": "fail"}],
            },
        ],
        "customProperties": [{"property": "on_fail", "value": "warn"}],
        "quality": [{"id": "few", "metric": "nullValues", "mustBeLessThan": 3}],
    }
    found = handled(load_contract(write(tmp_path, document)))
    assert found["required.name"] == found["unique.name"] == found["foreign_key.name"] == ("warning", "warn")
    assert found["second"] == ("error", "fail")
    assert found["few"] == ("error", "fail")


def test_the_hash_is_of_the_content_not_of_the_layout(tmp_path: Path) -> None:
    same = tmp_path / "same.yaml"
    same.write_text("# a comment\n" + yaml.safe_dump(PEOPLE, sort_keys=True, default_flow_style=True))
    other = copy.deepcopy(PEOPLE)
    other["version"] = "1.0.1"
    original = load_contract(HERE / "people.odcs.yaml")
    assert load_contract(same).hash == original.hash
    assert load_contract(write(tmp_path, other)).hash != original.hash
    assert len(original.hash) == 64


def test_a_file_that_has_changed_is_read_again_one_that_has_not_is_not(tmp_path: Path) -> None:
    file = write(tmp_path, PEOPLE)
    first = load_contract(file)
    assert load_contract(file) is first
    other = copy.deepcopy(PEOPLE)
    other["version"] = "9.0.0"
    assert load_contract(write(tmp_path, other)).version == "9.0.0"
