"""Images that stand out: dark, bright, blurred, next to empty, of an odd size, or coloured.

Scores, limits and the outlier rule of sizes are cleanvision's own; the raw values come from the
scan, so that no file is decoded again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLOUR_LIMIT", "ISSUES", "outliers"]

COLOUR_LIMIT = 0.01
"""Share of visibly coloured pixels above which an image is no plain radiograph."""
ISSUES = {
    "dark": "too dark to show anatomy",
    "light": "too bright to show anatomy",
    "blurry": "blurred",
    "low_information": "next to empty",
    "odd_size": "of a size far from the others",
    "odd_aspect_ratio": "much longer in one direction",
    "coloured": "coloured",
}
"""Issue -> what it means, in words that follow *images that are*."""


def outliers(scanned: pd.DataFrame) -> dict[str, list[tuple[int, str]]]:
    """Row numbers by issue, worst first, each with its score in words; unreadable rows are left out."""
    from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager

    read = scanned[scanned["error"].isna()].reset_index(names="row")
    if read.empty:
        return {}
    manager = ImagePropertyIssueManager()
    found = {
        issue: _flag(read, issue, measure, manager.get_default_params()[issue])
        for issue, measure in manager.image_properties.items()
        if issue in ISSUES
    }
    coloured = read[read["colour"] > COLOUR_LIMIT].sort_values("colour", ascending=False)
    found["coloured"] = [
        (int(r), f"{c:.0%} of the pixels") for r, c in zip(coloured["row"], coloured["colour"], strict=True)
    ]
    return {issue: rows for issue, rows in found.items() if rows}


def _flag(read: pd.DataFrame, issue: str, measure: Any, params: dict[str, float]) -> list[tuple[int, str]]:
    raw = read[measure.score_columns].astype("float64")
    scores = measure.get_scores(raw_scores=raw, issue_type=issue, **params)
    marked = measure.mark_issue(scores, issue, params.get("threshold"))
    score, flag = scores.iloc[:, 0], marked.iloc[:, 0]
    worst = score[flag].sort_values().index
    return [(int(read["row"][i]), f"score {score[i]:.3f} (0 worst, 1 best)") for i in worst]
