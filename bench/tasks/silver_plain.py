"""(b) The same steps and casts as one SQL statement and the same writer, without fates and rules: `lake folder`."""

from __future__ import annotations

import shutil
import sys

from bench.said import timed
from bench.tables import silver
from etl_resources.delta.evolution import conform, landing_schema
from etl_resources.engines.duckdb import quote
from etl_resources.lake import Commit


def main(lake: str, folder: str) -> None:
    shutil.copytree(lake, folder)
    table = silver(folder)

    def write() -> int:
        with table.engine.session() as session:
            bronze = table.bronze.open()
            relation = session.lake_relation(bronze)
            judgement = table.judgement(session, bronze, relation, {})
            types = table.spec.contract.duckdb_types()
            columns = ", ".join(f"CAST({quote(name)} AS {kind}) AS {quote(name)}" for name, kind in types.items())
            session.view("__bronze", relation)
            sql = f"SELECT {columns}, _batch, _row, _seq, _read_at FROM ({judgement.steps_sql}) WHERE NOT __flag_0"
            sql = sql if "__flag_0" in judgement.steps_columns else sql.partition(" WHERE ")[0]
            schema = landing_schema(session.arrow_schema(f"({sql})"))
            handle = table.table.ensure(schema)
            with table.table.stage(handle, schema) as staged:
                for batch in session.stream(sql):
                    staged.write(conform(batch, schema, where="bench"))
                table.table.append(handle, staged, Commit("plain", 1))
            return staged.stored_rows

    timed(write, "duckdb", "pyarrow.parquet", "deltalake")
    shutil.rmtree(folder)


main(*sys.argv[1:])
