"""The language of --where: what it means on a table and as SQL, and what it says of mistakes."""

from __future__ import annotations

import pandas as pd
import pytest

from wetread.errors import UsageError
from wetread.retrieval.where import columns_of, mask_of, parse_where, sql_of


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "body_part": ["ELBOW", "ELBOW", "HAND", None],
            "label": ["positive", "negative", "positive", "positive"],
            "age": [10.0, 40.0, None, 60.0],
            "view position": ["AP", "LL", "AP", "AP"],
        }
    )


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("body_part=ELBOW and label=positive", [0]),
        ("body_part=ELBOW or label=positive", [0, 1, 2, 3]),
        ("label=positive and (body_part=HAND or age>=60)", [2, 3]),
        ("body_part=HAND or body_part=ELBOW and label=negative", [1, 2]),  # and binds closer than or
        ("age < 40", [0]),
        ("age <= 40 AND age > 1e1", [1]),
        ("age = 40", [1]),
        ("age in (10, 60)", [0, 3]),
        ("body_part != ELBOW", [2]),  # what is not known is not another one
        ("not body_part = ELBOW", [2, 3]),
        ("body_part in (HAND, 'FOOT')", [2]),
        ("body_part not in (HAND)", [0, 1]),
        ("body_part is null", [3]),
        ("age is not null and not age = 10", [1, 3]),
        ("'view position'=\"LL\"", [1]),
        ("body_part<>ELBOW", [2]),
        ("body_part==HAND", [2]),
    ],
)
def test_rows_that_fit(table: pd.DataFrame, text: str, rows: list[int]) -> None:
    assert mask_of(parse_where(text), table).nonzero()[0].tolist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bodypart=ELBOW", "expected a column of the index in --where, got 'bodypart'; did you mean 'body_part'?"),
        ("qqq=1", "got 'qqq'; use one of body_part, label, age, view position"),
        ("body_part>A", "expected numbers in column 'body_part' for >, got text; use =, != or in"),
        ("age=old", "expected a number for column 'age', got 'old'"),
        ("label=positive and", "expected a column in --where, got the end; write e.g. --where"),
        ("label positive", "expected a sign such as = after 'label' in --where, got 'positive'"),
        ("label = ", "expected a value in --where, got the end"),
        ("(label=positive", r"expected '\)' in --where, got the end"),
        ("label=positive body_part=HAND", "expected the end, 'and' or 'or' in --where, got 'body_part'"),
        ("label in positive", r"expected '\(' and values after 'in' in --where, got 'positive'"),
        ("label=)", r"expected a value in --where, got '\)'"),
        ("label='positive", r"expected a condition in --where, got \"'positive\"; close the quotes"),
        ("", "expected a column in --where, got the end"),
    ],
)
def test_mistakes_are_named(table: pd.DataFrame, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mask_of(parse_where(text), table)


def test_values_never_stand_in_the_sql() -> None:
    hostile = "x'); DROP TABLE cases; --"
    condition = parse_where(f'label="{hostile}" and not (age > 40 or body_part is null) and label in (a, b)')
    text, values = sql_of(condition, frozenset({"age"}), lambda name: f"facts->>'{name}'")
    assert hostile not in text
    assert values == [hostile, 40.0, ["a", "b"]]
    assert text.count("%s") == len(values)
    assert columns_of(condition) == ("label", "age", "body_part")
    with pytest.raises(UsageError, match="expected numbers in column 'label' for <"):
        sql_of(parse_where("label < 3"), frozenset(), lambda name: name)
