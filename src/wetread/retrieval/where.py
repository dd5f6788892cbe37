"""The language of ``--where``: which cases may be answered with, by what is known of them.

``body_part=ELBOW and (label=positive or age >= 60) and not view in (LL, OBL)``. Words are ``and``, ``or``, ``not``,
``in``, ``is null``, ``is not null``; signs are ``= != < <= > >=``; a value with blanks or signs stands in quotes.
Decided here: an unknown cell fits nothing but ``is null``, so ``not age > 60`` and ``age <= 60`` differ where the age
is unknown. One condition is evaluated on a table, or written as SQL with its values apart.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wetread.errors import UsageError, expected

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "And",
    "Compare",
    "Condition",
    "Not",
    "Or",
    "SqlText",
    "columns_of",
    "mask_of",
    "parse_where",
    "refuse_unknown",
    "sql_of",
]

Sign = Literal["=", "!=", "<", "<=", ">", ">=", "in", "null"]
SqlText = tuple[str, list[object]]
"""SQL with ``%s`` for each value, and the values."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,)|(?P<word>[^\s<>=!(),"']+))"""
)
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_EXAMPLE = "write e.g. --where 'body_part=ELBOW and label=positive'"


@dataclass(frozen=True)
class Compare:
    """One column against ``values``: one of them, several for ``in``, none for ``null``."""

    column: str
    sign: Sign
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Not:
    """The opposite of a condition."""

    part: Condition


@dataclass(frozen=True)
class And:
    """All of the parts hold."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    """At least one of the parts holds."""

    parts: tuple[Condition, ...]


Condition = Compare | Not | And | Or


def parse_where(text: str) -> Condition:
    """Read a condition.

    Raises:
        UsageError: the text is not of this language; says at which word.
    """
    parser = _Parser(_tokens(text), text)
    condition = parser.either()
    if parser.here is not None:
        raise parser.wrong("the end, 'and' or 'or'")
    return condition


def columns_of(condition: Condition) -> tuple[str, ...]:
    """The columns that a condition asks for, each once, in their order."""
    if isinstance(condition, Compare):
        return (condition.column,)
    parts = (condition.part,) if isinstance(condition, Not) else condition.parts
    return tuple(dict.fromkeys(name for part in parts for name in columns_of(part)))


def refuse_unknown(condition: Condition, known: Sequence[str]) -> None:
    """Refuse a condition on columns that there are not; the nearest is suggested.

    Raises:
        UsageError: names the column.
    """
    for name in columns_of(condition):
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        cure = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(known)}"
        raise UsageError(expected("a column of the index in --where", f"'{name}'", cure))


def mask_of(condition: Condition, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows of a table fit, bool (N,).

    Raises:
        UsageError: an unknown column, or an order asked of text or of a value that is no number.
    """
    refuse_unknown(condition, [str(name) for name in table.columns])
    return _mask(condition, table)


def _mask(condition: Condition, table: pd.DataFrame) -> NDArray[np.bool_]:
    if isinstance(condition, Compare):
        return _compared(condition, table[condition.column])
    if isinstance(condition, Not):
        return ~_mask(condition.part, table)
    masks = [_mask(part, table) for part in condition.parts]
    whole = np.logical_and if isinstance(condition, And) else np.logical_or
    return np.asarray(whole.reduce(masks), dtype=np.bool_)


def _compared(one: Compare, column: pd.Series) -> NDArray[np.bool_]:
    from pandas.api.types import is_numeric_dtype

    unknown = column.isna().to_numpy(dtype=np.bool_)
    if one.sign == "null":
        return unknown
    numeric = bool(is_numeric_dtype(column.dtype))
    if one.sign in _ORDER and not numeric:
        raise UsageError(
            expected(f"numbers in column '{one.column}' for {one.sign}", "text", "use =, != or in for such a column")
        )
    if numeric:
        cells = column.to_numpy(dtype=np.float64, na_value=np.nan)
        numbers = [_number(one.column, value) for value in one.values]
        if one.sign in _ORDER:
            return np.asarray(_ORDER[one.sign](cells, numbers[0]) & ~unknown)
        found = np.isin(cells, numbers)
    else:
        found = column.isin(list(one.values)).to_numpy(dtype=np.bool_)
    return np.asarray((~found if one.sign == "!=" else found) & ~unknown)


def sql_of(condition: Condition, numeric: frozenset[str], column: Callable[[str], str]) -> SqlText:
    """Write a condition as SQL. ``column`` gives the expression of a column as text; ``numeric`` are cast to numbers.

    Raises:
        UsageError: as :func:`mask_of`.
    """
    if isinstance(condition, Compare):
        return _compared_sql(condition, condition.column in numeric, column(condition.column))
    if isinstance(condition, Not):
        text, values = sql_of(condition.part, numeric, column)
        return f"(NOT {text})", values
    parts = [sql_of(part, numeric, column) for part in condition.parts]
    word = " AND " if isinstance(condition, And) else " OR "
    return f"({word.join(text for text, _ in parts)})", [value for _, values in parts for value in values]


def _compared_sql(one: Compare, numeric: bool, cell: str) -> SqlText:
    if one.sign == "null":
        return f"({cell} IS NULL)", []
    if one.sign in _ORDER and not numeric:
        raise UsageError(
            expected(f"numbers in column '{one.column}' for {one.sign}", "text", "use =, != or in for such a column")
        )
    cell = f"({cell})::double precision" if numeric else cell
    values: list[object] = [_number(one.column, value) if numeric else value for value in one.values]
    if one.sign == "in":
        return f"COALESCE({cell} = ANY(%s), FALSE)", [values]
    sign = "<>" if one.sign == "!=" else one.sign
    return f"COALESCE({cell} {sign} %s, FALSE)", values


def _number(column: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(expected(f"a number for column '{column}'", f"'{value}'", "correct --where")) from None


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each word, quoted text or sign."""
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise UsageError(expected("a condition in --where", f"{text[at:].strip()[:20]!r}", "close the quotes"))
        kind = str(match.lastgroup)
        word = match[kind]
        found.append((kind, word[1:-1] if kind == "quoted" else word))
        at = match.end()
    return found


class _Parser:
    """Recursive descent: either > both > single."""

    def __init__(self, tokens: list[tuple[str, str]], text: str) -> None:
        self.tokens = tokens
        self.text = text
        self.at = 0

    @property
    def here(self) -> tuple[str, str] | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def wrong(self, what: str) -> UsageError:
        got = f"'{self.here[1]}'" if self.here else "the end"
        return UsageError(expected(f"{what} in --where", got, _EXAMPLE))

    def take(self, what: str, *kinds: str) -> str:
        if self.here is None or self.here[0] not in kinds:
            raise self.wrong(what)
        self.at += 1
        return self.tokens[self.at - 1][1]

    def skip(self, *words: str, kind: str = "word") -> bool:
        """Step over ``words`` where all of them follow."""
        ahead = self.tokens[self.at : self.at + len(words)]
        if [(kind, word) for word in words] != [(have, text.lower()) for have, text in ahead]:
            return False
        self.at += len(words)
        return True

    def either(self) -> Condition:
        parts = [self.both()]
        while self.skip("or"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self) -> Condition:
        parts = [self.single()]
        while self.skip("and"):
            parts.append(self.single())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def single(self) -> Condition:
        if self.skip("not"):
            return Not(self.single())
        if self.skip("(", kind="sign"):
            inner = self.either()
            if not self.skip(")", kind="sign"):
                raise self.wrong("')'")
            return inner
        return self.comparison(self.take("a column", "word", "quoted"))

    def comparison(self, column: str) -> Condition:
        if self.skip("is", "not", "null"):
            return Not(Compare(column, "null"))
        if self.skip("is", "null"):
            return Compare(column, "null")
        if self.skip("not", "in"):
            return And((Not(Compare(column, "null")), Not(Compare(column, "in", self.several()))))
        if self.skip("in"):
            return Compare(column, "in", self.several())
        given = self.take(f"a sign such as = after '{column}'", "sign")
        sign = {"==": "=", "<>": "!="}.get(given, given)
        if sign not in (*_ORDER, "=", "!="):
            self.at -= 1
            raise self.wrong(f"a sign such as = after '{column}'")
        return Compare(column, sign, (self.take("a value", "word", "quoted"),))  # type: ignore[arg-type]

    def several(self) -> tuple[str, ...]:
        if not self.skip("(", kind="sign"):
            raise self.wrong("'(' and values after 'in'")
        values = [self.take("a value", "word", "quoted")]
        while self.skip(",", kind="sign"):
            values.append(self.take("a value", "word", "quoted"))
        if not self.skip(")", kind="sign"):
            raise self.wrong("')'")
        return tuple(values)
