"""`etl demo`: two pipelines on real and on dirty data, to a finished result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etl_assets.cli.options import Env, Json

app = typer.Typer(
    name="demo",
    help="Run two pipelines, flights and retail, to a finished result; or only make their data (docs/demo.md).",
)

Rows = Annotated[int, typer.Option("--rows", help="Records in sales.csv, 1,000 to 19,000,000.")]
Seed = Annotated[int, typer.Option("--seed", help="The same rows and seed give the same bytes.")]


@app.callback(invoke_without_command=True)
def demo(context: typer.Context, rows: Rows = 20_000, seed: Seed = 7, env: Env = None, json: Json = False) -> int:
    """Make the data of both pipelines and run them."""
    if context.invoked_subcommand is not None:
        return 0
    from etl_assets.cli.demonstration import demonstrate
    from etl_assets.cli.project import entered

    with entered(env) as project:
        return demonstrate(project, rows=rows, seed=seed, as_json=json)


@app.command("retail")
def retail(
    rows: Rows = 20_000,
    seed: Seed = 7,
    into: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: RETAIL_DIR, or data/retail.")] = None,
    env: Env = None,
    json: Json = False,
) -> None:
    """Make the shop's dirty data, and the truth about every record beside them."""
    from etl_assets.cli.demonstration import folder_of
    from etl_assets.cli.output import emit, plural, stdout
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting
    from etl_assets.demo.retail import generate

    start = Path.cwd()
    with entered(env) as project:
        folder = folder_of(project, "retail") if into is None else start / into
        with waiting("making sales"):
            truth = generate(folder, rows=rows, seed=seed)
        if json:
            emit({"folder": str(folder), "fates": truth.fates, "warnings": truth.warnings})
            return
        console = stdout()
        for stream, fates in truth.fates.items():
            others = ", ".join(f"{fate} {count:,}" for fate, count in sorted(fates.items()) if fate != "kept")
            console.print(f"{stream}: {plural(sum(fates.values()), 'record')}, {fates['kept']:,} to keep; {others}")
        console.print(f"In {folder}; the truth about each record in {folder / 'truth'}.", soft_wrap=True)


@app.command("flights")
def flights(
    into: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: FLIGHTS_DIR, or data/flights.")] = None,
    env: Env = None,
    json: Json = False,
) -> None:
    """Lay out the flights out of New York in 2013."""
    from etl_assets.cli.demonstration import folder_of
    from etl_assets.cli.output import emit, stdout
    from etl_assets.cli.project import entered
    from etl_assets.demo.flights import prepare

    start = Path.cwd()
    with entered(env) as project:
        folder = folder_of(project, "flights") if into is None else start / into
        files = prepare(folder)
        if json:
            emit({"folder": str(folder), "files": [str(file) for file in files]})
        else:
            stdout().print(f"{len(files)} files in {folder}.", soft_wrap=True)


@app.command("events")
def events(
    orders: Annotated[int, typer.Option("--orders", min=1, help="Orders whose events are sent.")] = 1000,
    seed: Seed = 7,
    env: Env = None,
    json: Json = False,
) -> None:
    """Send orders and page views to Kafka at KAFKA_SERVERS (127.0.0.1:9092), for the pipeline events."""
    import os
    from dataclasses import asdict

    from etl_assets.cli.output import emit, plural, stdout
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting
    from etl_assets.demo.events import ORDERS, PAGE_VIEWS, send

    with entered(env):
        servers = os.environ.get("KAFKA_SERVERS", "127.0.0.1:9092")
        with waiting("sending events"):
            sent = send(servers, orders=orders, seed=seed)
        if json:
            emit({"servers": servers, **asdict(sent)})
            return
        stdout().print(
            f"{plural(sent.orders, 'order')}, {plural(sent.order_events, 'event')} in {ORDERS} and"
            f" {plural(sent.page_views, 'view')} in {PAGE_VIEWS}; {sent.broken} broke on the way, {sent.erased} were"
            " erased. `etl run events` reads them.",
            soft_wrap=True,
        )
