"""``wetread evaluate --hide ORGAN`` on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wetread.evaluation.result import HiddenResult

__all__ = ["hidden_table"]


def hidden_table(result: HiddenResult) -> Any:
    """Return the rows for the terminal."""
    from rich.table import Table
    from rich.text import Text

    from wetread.reporting.numbers import estimate

    title = Text(f"The same reader with the {result.organ} painted over", style="bold")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("label", "AUROC, whole image", f"AUROC without {result.organ}", "difference"):
        table.add_column(Text(column), overflow="fold")
    for row in result.labels:
        table.add_row(Text(row.label), *(estimate(one) for one in (row.whole, row.hidden, row.difference)))
    return table
