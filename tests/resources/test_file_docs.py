"""The `file` sections of docs/sources/file.md and docs/targets.md: tables that match the code, examples that run."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pydantic import BaseModel

from etl_resources.files.notifications import NotificationOptions, queue_of
from etl_resources.files.storage import Storage
from etl_resources.source import Stream
from etl_resources.sources.file import FileOptions, FileSource
from etl_resources.target import CommitToken, Load
from etl_resources.targets.file import FileTarget, FileTargetOptions

DOCS = Path(__file__).parents[2] / "docs"


def section(page: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    return text if page == "sources/file.md" else text.split("\n## file\n")[1].split("\n## ")[0]


def examples(page: str) -> list[Any]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", section(page), flags=re.DOTALL)]


@pytest.mark.parametrize(
    ("page", "heading", "model"),
    [
        ("sources/file.md", "option of `source:`", FileOptions),
        ("sources/file.md", "key of `notifications:`", NotificationOptions),
        ("targets.md", "option of `target:`", FileTargetOptions),
    ],
)
def test_the_table_of_options_is_the_model(page: str, heading: str, model: type[BaseModel]) -> None:
    """Every option is there, no other, with the default that it has."""
    table = section(page).split(f"| {heading} ")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, flags=re.MULTILINE))
    assert list(rows) == [name for name in model.model_fields if name not in {"type", "connection"}]
    for name, written in rows.items():
        default = model.model_fields[name].get_default(call_default_factory=True)
        if written.strip().startswith("`") and name != "delimiter":
            value = written.strip().strip("`")
            parsed = value if isinstance(default, str) else yaml.safe_load(value)
            assert parsed == (list(default) if isinstance(default, tuple) else default), name
        else:
            assert not default or name in {"path", "queue_url"}, name


def test_the_example_of_notifications_names_a_queue_and_its_region() -> None:
    """The loading itself is in test_file_notifications, against the same options."""
    _, _, pipeline = examples("sources/file.md")
    (stream,) = pipeline["streams"].values()
    settings = FileOptions(**stream["source"]).notifications
    assert settings is not None
    assert queue_of(settings.queue_url, Storage()).region == "eu-central-1"


def test_the_examples_of_source_and_target_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("landing").mkdir()
    Path("landing/customers-1.csv").write_text("customer_id;name\n1;NA\n2;Ann\nbroken\n")
    products = b'{"products": [{"product_id": 1, "price": 1.50}, {"product_id": 2, "price": 19}]}'
    Path("landing/products.json.gz").write_bytes(gzip.compress(products))
    pipeline, connections, _ = examples("sources/file.md")
    for connection in connections["attributes"]["connections"].values():
        assert connection.pop("type") == "file"
        FileSource(**connection)
        FileTarget(**connection)
    streams = {n: FileOptions(**s["source"]) for n, s in pipeline["streams"].items()}
    (customers,) = FileSource().read(Stream("customers", streams["customers"]), None)
    assert customers.data.column("name").to_pylist() == [None, "Ann"]
    assert customers.rows_read == 3
    (found,) = FileSource().read(Stream("products", streams["products"]), None)
    assert found.data.schema.field("price").type == pa.decimal128(12, 2)

    data = pa.table({"segment": ["a"], "revenue": [1]})
    for publish in examples("targets.md")[0]["publish"]:
        options = FileTargetOptions(**publish["target"])
        if options.connection is None:
            load = Load(options, data.schema, publish["mode"], CommitToken("docs", 1, "run"))
            assert FileTarget().write(load, data.to_batches()).inserted == 1
    (written,) = Path("reports/revenue_by_segment").glob("*.csv")
    assert written.read_text() == "segment,revenue\na,1\n"
