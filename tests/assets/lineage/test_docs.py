from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[3] / "docs" / "lineage.md").read_text(encoding="utf-8")


def test_the_example_on_the_page_gives_the_table_on_the_page() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)

    found = {f"`{name}`": refs for name, refs in names["lineage"].items()} | {"*rows*": names["rows"]}
    table = dict(re.findall(r"^\| (\S+) \| (.*) \|$", PAGE, re.MULTILINE)[1:])
    shown = {
        name: ", ".join(f"`{table}.{column}`" for table, column in sorted(refs)) or "nothing"
        for name, refs in found.items()
    }

    assert table == shown
