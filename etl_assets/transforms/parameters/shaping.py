"""Steps that change which columns a table has."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Self

from pydantic import Field, model_validator

from etl_assets.transforms.parameters.base import Column, Columns, RowStep, TableStep, step
from etl_assets.transforms.parameters.rows import Sql


@step("select", "shaping:select", "select: [customer_id, email]")
class Select(RowStep):
    """Keep these columns, in this order."""

    main: ClassVar[str | None] = "columns"
    columns: Columns = Field(description="Columns to keep.")


@step("drop", "shaping:drop", "drop: [internal_note]")
class Drop(RowStep):
    """Leave out these columns."""

    main: ClassVar[str | None] = "columns"
    columns: Columns = Field(description="Columns to leave out.")


@step("rename", "shaping:rename", "rename: {cust_no: customer_id}")
class Rename(RowStep):
    """Give columns other names."""

    main: ClassVar[str | None] = "columns"
    main_is_mapping: ClassVar[bool] = True
    columns: dict[Column, Column] = Field(description="Old name -> new name.", min_length=1)

    @model_validator(mode="after")
    def _no_two_alike(self) -> Self:
        twice = [name for name, times in Counter(self.columns.values()).items() if times > 1]
        if twice:
            raise ValueError(f"two columns would be called {twice[0]!r}")
        return self


@step("add", "shaping:add", 'add: {total: "quantity * price - discount"}')
class Add(RowStep):
    """Add columns, or replace them, by SQL expressions over the row; all see the columns as they were before."""

    main: ClassVar[str | None] = "columns"
    main_is_mapping: ClassVar[bool] = True
    columns: dict[Column, Sql] = Field(description="Column -> scalar SQL expression (DuckDB).", min_length=1)


@step("flatten", "shaping:flatten", "flatten: {columns: [address], depth: 1}")
class Flatten(RowStep):
    """Make the fields of structs columns, `address.city` -> `address_city`; lists stay."""

    main: ClassVar[str | None] = "columns"
    columns: Columns | None = Field(default=None, description="Struct columns; left out: all.")
    depth: int | None = Field(default=None, ge=1, description="Levels to open; left out: all.")
    separator: str = Field(default="_", description="Between the names.")


@step("split", "shaping:split", 'split: {column: name, separator: ", ", into: [last_name, first_name]}')
class Split(RowStep):
    """Cut text into columns; the last takes all that is left, missing parts are NULL. The text stays."""

    column: Column = Field(description="Text to cut.")
    separator: str = Field(description="Where to cut; plain text.", min_length=1)
    into: Columns = Field(description="New columns.", min_length=2)


@step(
    "concatenate", "shaping:concatenate", 'concatenate: {columns: [first_name, last_name], into: name, separator: " "}'
)
class Concatenate(RowStep):
    """Join columns into one text, leaving out NULL; NULL when all are."""

    columns: Columns = Field(description="Columns to join.")
    into: Column = Field(description="New column.")
    separator: str = Field(default="", description="Between the parts.")


@step("hash", "keys:hash_", "hash: {columns: [email], into: email_hash}")
class Hash(RowStep):
    """SHA-256 (64 hexadecimal digits) of columns. ("a", "bc") and ("ab", "c") differ, and so do NULL and ""."""

    columns: Columns = Field(description="Columns to hash; numbers hash by value, whatever their type.")
    into: Column = Field(description="New column.")


@step("surrogate_key", "keys:surrogate_key", "surrogate_key: {columns: [source, customer_id], into: customer_key}")
class SurrogateKey(RowStep):
    """A key made from other columns: 32 hexadecimal digits, the same for the same values, today and tomorrow."""

    columns: Columns = Field(description="Columns that identify the row.")
    into: Column = Field(description="New column.")


@step("unnest", "nesting:unnest", "unnest: {column: items, key: [order_id], ordinal: line}")
class Unnest(TableStep):
    """Make a table of the elements of a list: one row each, with the key of their parent and their position."""

    column: Column = Field(description="The list.")
    key: Columns = Field(description="Columns of the parent to keep.")
    ordinal: Column = Field(default="ordinal", description="New column: the element's position, from 1.")

    def looks_at_other_rows(self) -> str:
        """Return why the result of a row depends on other rows."""
        return "unnest makes another number of rows, which is another table"
