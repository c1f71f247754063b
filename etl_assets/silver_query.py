"""The one query that judges bronze rows: steps, contract types and row rules, all compiled to SQL.

Its result has the columns of the silver table, the provenance columns, and

- `__verdict` (BIGINT words `__v0`, `__v1`, …): bit *i* is set when the *i*-th verdict hits; a row without any is kept,
  and the lowest bit is its fate, because verdicts stand in the order in which the user wrote them;
- `__w0`, …: the same for rules that do not reject (`on_fail: fail | warn`).

Masks instead of lists of names: a bit per rule costs next to nothing per row, a list of strings does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from etl_resources.engines.duckdb import literal, quote

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.transforms import Flag, Step
    from etl_checks.contract import Contract
    from etl_checks.rules import Rule

PROVENANCE = ("_batch", "_row", "_seq", "_op", "_read_at")
BRONZE = "__bronze"
"""Name of the bronze table in `Judgement.steps_sql`."""
WORD = 62
"""Verdicts per BIGINT."""
EMPTIED = "truncate"
"""Rule by which an event is filtered that says that the source's table was emptied: it is about no row."""


@dataclass(frozen=True)
class Verdict:
    """A way in which a row does not get through."""

    fate: Literal["filtered", "rejected"]
    rule: str
    reason: str
    sql: str = field(repr=False)
    """Boolean over the shaped row; never NULL."""
    on_deletes: bool = False
    """Whether it also judges rows that announce a deletion: they need a key and nothing else."""


@dataclass(frozen=True)
class Judgement:
    """The compiled query and how to read its masks."""

    sql: str
    columns: tuple[str, ...]
    """Columns of the silver table, without provenance."""
    verdicts: tuple[Verdict, ...]
    watched: tuple[Rule, ...]
    """Rules that do not reject, in the order of their bits."""
    unlisted: tuple[str, ...] = ()
    """Columns that arrive and that the contract does not name: they stay in bronze."""
    shaped_sql: str = ""
    """The rows without their masks: what a look at a few columns costs no more than those columns with."""
    steps_sql: str = ""
    """The steps alone, over a table named `BRONZE`, for column lineage."""
    steps_columns: tuple[str, ...] = ()
    """What `steps_sql` returns."""

    @property
    def words(self) -> int:
        """Number of verdict masks."""
        return max(1, -(-len(self.verdicts) // WORD))

    def kept(self, alias: str = "j") -> str:
        """Return SQL: no verdict hits."""
        return " AND ".join(f"{alias}.__v{word} = 0" for word in range(self.words))

    def fate(self, alias: str = "j") -> str:
        """Return SQL: the fate of a row on which a verdict hits, as `filtered:<rule>` or `rejected:<rule>`."""
        arms = " ".join(
            f"WHEN {hit(alias, 'v', index)} THEN {literal(f'{verdict.fate}:{verdict.rule}')}"
            for index, verdict in enumerate(self.verdicts)
        )
        return f"CASE {arms} END" if arms else "NULL"

    def names(self, what: Literal["rule", "reason"], alias: str = "j") -> str:
        """Return SQL: the list of the rules (or reasons) of every rejecting verdict that hits."""
        parts = [
            f"CASE WHEN {hit(alias, 'v', index)} THEN {literal(getattr(verdict, what))} END"
            for index, verdict in enumerate(self.verdicts)
            if verdict.fate == "rejected"
        ]
        return f"list_filter([{', '.join(parts)}], lambda x: x IS NOT NULL)" if parts else "[]::VARCHAR[]"


def hit(alias: str, kind: Literal["v", "w"], index: int) -> str:
    """Return SQL: bit `index` of a mask is set."""
    word, bit = divmod(index, WORD)
    return f"({alias}.__{kind}{word} & {1 << bit}) <> 0"


@dataclass(frozen=True)
class Shape:
    """The steps, compiled for the columns of a bronze table."""

    sql: str
    """Over a table named `BRONZE`."""
    columns: tuple[str, ...]
    """What it returns."""
    flags: tuple[Flag, ...]


def shape(bronze: pa.Schema, steps: Sequence[Step]) -> Shape:
    """Compile row-preserving steps for the columns of a bronze table, provenance included."""
    import ibis

    from etl_assets.transforms import apply_steps

    draft = apply_steps(ibis.table(ibis.Schema.from_pyarrow(bronze), name=BRONZE), steps)
    sql = str(ibis.to_sql(draft.table, dialect="duckdb"))
    return Shape(sql, tuple(draft.table.columns), tuple(draft.flags))


def judge(
    draft: Shape,
    relation: str,
    *,
    key: Sequence[str],
    contract: Contract | None,
    references: Mapping[str, str],
    extra: Sequence[Verdict] = (),
    captured: bool = False,
) -> Judgement:
    """Compile the judgement of the rows of `relation`.

    Args:
        draft: the steps over the columns of the bronze table, provenance included.
        relation: SQL after FROM that gives the bronze rows to judge.
        key: columns of the silver table that identify a row; a NULL in one rejects the row.
        contract: gives the columns, the types and the rules; None: the steps' columns as they are.
        references: name of a table -> SQL relation, for foreign keys.
        extra: further verdicts over the shaped row.
        captured: the rows are events of a change log; `_pos` is carried along.
    """
    flags = {flag.column for flag in draft.flags}
    arriving = [name for name in draft.columns if not name.startswith("_") and name not in flags]
    shaped = draft.sql.replace(quote(BRONZE), relation)
    verdicts = [Verdict(flag.fate, flag.rule, flag.reason, f"t.{quote(flag.column)}") for flag in draft.flags]
    types = contract.duckdb_types() if contract is not None else {}
    columns = tuple(types) if contract is not None else tuple(arriving)
    typed, casts = _typed(columns, arriving, types)
    verdicts += casts
    provenance = (*PROVENANCE, "_pos") if captured else PROVENANCE
    alive = f"t._op <> {literal(EMPTIED)}" if captured else "true"
    required = [
        Verdict(
            "rejected",
            f"key.{name}",
            f"key column {name} is empty",
            f"t.{quote(name)} IS NULL AND {alive}",
            on_deletes=True,
        )
        for name in key
    ]
    if captured:
        verdicts.append(Verdict("filtered", EMPTIED, "the table was emptied", f"NOT ({alive})", on_deletes=True))
    rules = [rule for rule in contract.rules if rule.scope == "row"] if contract is not None else []
    joins, judged, watched = _contract_rules(rules, references, {verdict.rule for verdict in required})
    verdicts += [*required, *judged, *extra]
    carried = ", ".join([*typed, *map(quote, (*provenance, *sorted(flags)))])
    inner = f"SELECT {carried} FROM ({shaped})"  # noqa: S608
    output = [f"t.{quote(name)}" for name in (*columns, *provenance)]
    row = f"t._op NOT IN ('delete', {literal(EMPTIED)})" if captured else "t._op <> 'delete'"
    masks = [
        *_masks("v", [verdict.sql if verdict.on_deletes else f"({verdict.sql}) AND {row}" for verdict in verdicts]),
        *_masks("w", [f"({expression}) AND {row}" for _, expression in watched]),
    ]
    sql = f"SELECT {', '.join([*output, *masks])} FROM ({inner}) t {joins}"  # noqa: S608
    unlisted = tuple(name for name in arriving if contract is not None and name not in types)
    return Judgement(
        sql,
        columns,
        tuple(verdicts),
        tuple(rule for rule, _ in watched),
        unlisted,
        inner,
        draft.sql,
        draft.columns,
    )


def _typed(
    columns: Sequence[str], arriving: Sequence[str], types: Mapping[str, str]
) -> tuple[list[str], list[Verdict]]:
    """Return the select list that casts to the contract's types, and a verdict per column whose value does not cast."""
    select: list[str] = []
    verdicts: list[Verdict] = []
    for name in columns:
        column, kind = quote(name), types.get(name)
        if name not in arriving:
            select.append(f"CAST(NULL AS {kind}) AS {column}")
        elif kind is None:
            select.append(column)
        else:
            failed = quote(f"__cast_{name}")
            select += [
                f"TRY_CAST({column} AS {kind}) AS {column}",
                f"({column} IS NOT NULL AND TRY_CAST({column} AS {kind}) IS NULL) AS {failed}",
            ]
            reason = f"{name} is not a {kind}"
            verdicts.append(Verdict("rejected", f"type.{name}", reason, f"t.{failed}"))
    return select, verdicts


def _contract_rules(
    rules: Sequence[Rule], references: Mapping[str, str], covered: set[str]
) -> tuple[str, list[Verdict], list[tuple[Rule, str]]]:
    from etl_checks.fused import row_violations

    # A key's own `required` says what `key.<column>` says already.
    rules = [rule for rule in rules if not (rule.kind == "required" and f"key.{rule.columns[0]}" in covered)]
    if not rules:
        return "", [], []
    violations = row_violations(rules, "t", references=references)
    judged: list[Verdict] = []
    watched: list[tuple[Rule, str]] = []
    for rule in rules:
        expression = violations.conditions[rule.id]
        if rule.on_fail == "reject":
            # A description says what should be; alone, it would read as what is.
            reason = f"does not hold: {rule.description or rule.id}"
            judged.append(Verdict("rejected", rule.id, reason, expression))
        else:
            watched.append((rule, expression))
    return violations.joins_sql, judged, watched


def _masks(kind: str, expressions: Sequence[str]) -> list[str]:
    words = max(1, -(-len(expressions) // WORD))
    masks = []
    for word in range(words):
        bits = [
            f"(CASE WHEN {expression} THEN {1 << bit} ELSE 0 END)"
            for bit, expression in enumerate(expressions[word * WORD : (word + 1) * WORD])
        ]
        masks.append(f"CAST({' | '.join(bits) or '0'} AS BIGINT) AS __{kind}{word}")
    return masks
