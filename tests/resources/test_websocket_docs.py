"""The examples of docs/sources/websocket.md and docs/sources/sse.md are read, and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl_resources.secret import Secret
from etl_resources.source import Stream
from etl_resources.sources.sse import SseOptions, SseSource
from etl_resources.sources.websocket import WebsocketOptions, WebsocketSource
from etl_resources.sources.websocket_protocol import opening
from tests.servers.streams import running_streams

DOCS = Path(__file__).parents[2] / "docs" / "sources"
KINDS: dict[str, tuple[str, Any, Any]] = {
    "websocket": ("ws", WebsocketSource, WebsocketOptions),
    "sse": ("sse", SseSource, SseOptions),
}


@pytest.mark.parametrize("page", KINDS)
def test_the_examples_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EXCHANGE_TOKEN", "EXCHANGE_KEY", "NEWS_TOKEN"):
        monkeypatch.setenv(name, f"the {name}")
    kind, source_type, options_type = KINDS[page]
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    connection, pipeline = (yaml.safe_load(b) for b in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL))
    ((_, written),) = connection["attributes"]["connections"].items()
    assert written.pop("type") == page
    source_type(**written)
    ((name, stream),) = pipeline["streams"].items()
    with running_streams() as server:
        token = written["auth"]["bearer"]["env"]
        channel = server.channel(
            stream["source"]["path"],
            messages=['{"id": 0}', '{"id": 1}'],
            bearer=f"the {token}",
            subscribes=kind == "ws",
        )
        url = server.url(kind, "").rstrip("/")
        source = source_type(**{**written, "url": url, "allow_plaintext": True, "ca_file": None})
        what = Stream(name, options_type(**stream["source"], idle_seconds=0.3))
        (batch,) = source.read(what, None)
        channel.messages.append('{"id": 2}')
        (later,) = source.read(what, batch.position)
    assert (batch.data.num_rows, later.data.num_rows) == (2, 1)
    if kind == "ws":
        assert channel.connected[-1]["subscribe"] == {"op": "subscribe", "key": "the EXCHANGE_KEY", "after": 1}
    for option in options_type.model_fields.keys() - {"type", "connection"}:
        assert f"`{option}`" in text, option


def test_placeholders_keep_the_type_of_what_they_stand_for() -> None:
    options = WebsocketOptions(
        subscribe=("hello {key}", {"key": "{key}"}),
        secrets={"key": Secret(env="X")},
        resume={"token": "$.a.b", "subscribe": ({"after": "{token}", "text": "after {token}", "list": [["{token}"]]},)},
    )
    assert opening(options, None, {"key": 's"t'}) == ['hello s"t', '{"key": "s\\"t"}']
    assert opening(options, 5, {"key": "s"}) == ['{"after": 5, "text": "after 5", "list": [[5]]}']


def test_a_path_that_is_none_is_refused() -> None:
    for path in ("", "$.", "a..b"):
        with pytest.raises(ValueError, match="outside to the inside"):
            WebsocketOptions(ignore={path: ("x",)})
