"""How results look: SVG text on a white card, the same bytes for the same result.

The only module that imports matplotlib, and it does so inside functions. Colours keep apart in
print and for colour-blind readers (Okabe & Ito 2008); text stays text.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from wetread.evaluation.result import (
    ConfusionMatrix,
    EvaluationResult,
    LabelResult,
    PrCurve,
    ReliabilityCurve,
    RocCurve,
    ScoreHistogram,
)
from wetread.types import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "confusion_plot",
    "histogram_plot",
    "learning_plot",
    "pr_plot",
    "reliability_plot",
    "result_plots",
    "roc_plot",
]

BLUE, ORANGE, GREEN, INK, GREY, PALE = "#0072B2", "#D55E00", "#009E73", "#1f2933", "#7b8794", "#e4e7eb"
_MARKERS = ("o", "s", "^", "D", "v", "P")
_SQUARE, _TALL = (4.4, 4.4), (4.4, 5.0)

_STYLE: dict[str, Any] = {
    "svg.hashsalt": "wetread",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a dollar sign
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


@contextmanager
def _figure(size: tuple[float, float]) -> Iterator[tuple[Figure, Axes, list[str]]]:
    """Yield figure, axes and a list that receives the SVG text when the block ends."""
    import logging

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # The SVG names several fonts and the page picks one; a missing one is no news.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    style: Any = _STYLE  # matplotlib 3.11 types the keys one by one, older versions do not
    with mpl.rc_context(style):
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)  # inches: fonts differ by viewer
        axes = figure.add_subplot()
        done: list[str] = []
        yield figure, axes, done
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        done.append(_inline(buffer.getvalue()))


def _inline(svg: str) -> str:
    """Return the ``<svg>`` element alone, scaling to its column, without XML prologue and comments."""
    body = re.sub(r"<!--.*?-->\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", body, count=2)


def percent_text(estimate: Estimate) -> str:
    """Return e.g. ``0.912 (0.871-0.943)``, or the value alone where there is no interval."""
    if estimate.value is None:
        return "not defined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f}\N{EN DASH}{estimate.high:.3f})"


def _unit_axes(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y)
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.set_aspect("equal")


def roc_plot(roc: RocCurve, result: LabelResult, title: str = "") -> str:
    """Return the ROC curve with its band, its area, and the operating points as they came out."""
    with _figure(_SQUARE) as (_, axes, done):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        if roc.grid:
            axes.fill_between(roc.grid, roc.low, roc.high, color=BLUE, alpha=0.15, linewidth=0)
        area = percent_text(result.metrics["auroc"])
        axes.plot(roc.false_positive_rate, roc.sensitivity, color=BLUE, linewidth=1.8, label=f"AUROC {area}")
        for marker, point in zip(_MARKERS, result.operating_points, strict=False):
            sensitivity, specificity = point.metrics.get("sensitivity"), point.metrics.get("specificity")
            if sensitivity is None or specificity is None:
                continue
            if sensitivity.value is None or specificity.value is None:
                continue
            axes.plot(
                1 - specificity.value,
                sensitivity.value,
                marker=marker,
                markersize=7,
                color=ORANGE,
                markeredgecolor="white",
                linestyle="none",
                label=_point_label(point.name, point.threshold),
            )
        _unit_axes(axes, "1 - specificity", "Sensitivity")
        axes.set_title(title or f"ROC: {result.label}")
        axes.legend(loc="lower right")
    return done[0]


def _point_label(name: str, threshold: float | None) -> str:
    return name if threshold is None or name.startswith("fixed") else f"{name} (at {threshold:.3g})"


def pr_plot(pr: PrCurve, result: LabelResult, title: str = "") -> str:
    """Return precision against recall, with the prevalence as the line that guessing reaches."""
    with _figure(_SQUARE) as (_, axes, done):
        axes.axhline(pr.prevalence, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"prevalence {pr.prevalence:.2f}",
            (0.01, pr.prevalence),
            xytext=(0, -3 if pr.prevalence > 0.15 else 3),
            textcoords="offset points",
            va="top" if pr.prevalence > 0.15 else "bottom",
            color=GREY,
            fontsize=8.5,
        )
        area = percent_text(result.metrics["auprc"])
        recall, precision = np.append(0.0, pr.recall), np.append(pr.precision[0], pr.precision)
        axes.step(recall, precision, where="pre", color=BLUE, linewidth=1.8, label=f"AUPRC {area}")
        _unit_axes(axes, "Recall (sensitivity)", "Precision (PPV)")
        axes.set_title(title or f"Precision and recall: {result.label}")
        axes.legend(loc="lower left")
    return done[0]


def reliability_plot(curve: ReliabilityCurve, label: str, title: str = "") -> str:
    """Return observed share against probability, with Wilson bars and the counts of each bin below."""
    bins = [one for one in curve.bins if one.count and one.mean_probability is not None]
    with _figure(_TALL) as (figure, axes, done):
        figure.delaxes(axes)
        grid = figure.add_gridspec(2, 1, height_ratios=(4, 1))
        top, bottom = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
        x = np.array([one.mean_probability for one in bins])
        y, low, high = (np.array([getattr(one.observed, key) for one in bins]) for key in ("value", "low", "high"))
        top.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), label="perfect")
        top.errorbar(
            x, y, yerr=[np.maximum(y - low, 0), np.maximum(high - y, 0)], color=BLUE, marker="o",
            markersize=5, linewidth=1.4, elinewidth=1, capsize=2, label="observed, 95 % interval",
        )  # fmt: skip
        _unit_axes(top, "", "Observed share")
        top.set_aspect("auto")
        top.set_title(title or f"Reliability: {label}")
        top.legend(loc="upper left")
        null = f"perfect reader: mean {curve.null_mean:.3f}, 95th percentile {curve.null_p95:.3f}"
        for height, text in ((0.09, f"ECE {curve.ece:.3f}"), (0.03, null)):
            top.text(0.99, height, text, transform=top.transAxes, ha="right", fontsize=8.5)
        edges = np.array([one.low for one in curve.bins] + [curve.bins[-1].high])
        counts = [one.count for one in curve.bins]
        bottom.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=BLUE, alpha=0.6, edgecolor="white")
        bottom.set(xlim=(-0.02, 1.02), xlabel="Predicted probability", ylabel="Count")
    return done[0]


def histogram_plot(histogram: ScoreHistogram, result: LabelResult, title: str = "") -> str:
    """Return how probabilities are spread, positives above and negatives below the line."""
    with _figure(_SQUARE) as (figure, axes, done):
        edges = np.array(histogram.edges)
        widths = np.diff(edges)
        up, down = np.array(histogram.positives), -np.array(histogram.negatives)
        axes.bar(edges[:-1], up, width=widths, align="edge", color=ORANGE, edgecolor="white",
                 linewidth=0.5, label=f"positive ({result.positives})")  # fmt: skip
        axes.bar(edges[:-1], down, width=widths, align="edge", color=BLUE, edgecolor="white",
                 linewidth=0.5, label=f"negative ({result.negatives})")  # fmt: skip
        axes.axhline(0, color=INK, linewidth=0.8)
        for style, point in zip(((0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2))), result.operating_points, strict=False):
            if point.threshold is not None:
                axes.axvline(min(point.threshold, 1.0), color=INK, linewidth=1.1, linestyle=style, label=point.name)
        axes.set(xlim=(-0.01, 1.01), xlabel="Predicted probability", ylabel="Count")
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.set_title(title or f"Probabilities: {result.label}")
        figure.legend(loc="outside lower center", ncols=2)
    return done[0]


def confusion_plot(matrix: ConfusionMatrix, title: str = "") -> str:
    """Return the confusion matrix: counts, share of the true class, colour by that share."""
    counts = np.array(matrix.counts)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    size = 2.6 + 0.75 * len(matrix.classes)
    with _figure((size + 0.4, size)) as (_, axes, done):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)
        axes.grid(visible=False)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.6 else INK
            text = f"{count}\n{shares[row, column]:.1%}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
        names = list(matrix.classes)
        turn = 30 if max(map(len, names)) * len(names) > 40 else 0
        axes.set_xticks(range(len(names)), names, rotation=turn, ha="right" if turn else "center")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel=f"Decision ({matrix.rule})", ylabel="Truth")
        axes.set_title(title or "Confusion matrix")
    return done[0]


def result_plots(result: EvaluationResult) -> dict[str, str]:
    """Return every plot of an evaluation as SVG text, by name: ``confusion``, ``roc <label>`` and so on.

    Plots whose curve is None (one class present) are left out; the result's notes say why.
    """
    found = {} if result.confusion is None else {"confusion": confusion_plot(result.confusion)}
    for one in result.labels:
        if one.roc is not None:
            found[f"roc {one.label}"] = roc_plot(one.roc, one)
        if one.pr is not None:
            found[f"pr {one.label}"] = pr_plot(one.pr, one)
        if one.reliability is not None:
            found[f"reliability {one.label}"] = reliability_plot(one.reliability, one.label)
        if one.histogram is not None:
            found[f"histogram {one.label}"] = histogram_plot(one.histogram, one)
    return found


def learning_plot(series: Mapping[str, Sequence[tuple[int, float]]], y: str, title: str = "") -> str:
    """Return SVG text of curves over epochs; ``series`` maps a name to (epoch, value) points."""
    from matplotlib.ticker import MaxNLocator

    styles = itertools.product(("-", "--", ":", "-."), (BLUE, ORANGE, GREEN, INK))  # 16 curves apart
    with _figure((4.4, 3.2)) as (_, axes, done):
        for (name, points), (dash, colour), marker in zip(
            series.items(), itertools.cycle(styles), itertools.cycle(_MARKERS), strict=False
        ):
            epochs, values = [p[0] + 1 for p in points], [p[1] for p in points]
            axes.plot(epochs, values, color=colour, linestyle=dash, marker=marker, markersize=4, label=name)
        axes.set(xlabel="epoch", ylabel=y)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title)
        axes.legend()
    return done[0]
