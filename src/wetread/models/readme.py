"""The README of a bundle: a Hugging Face model card written from the card's facts alone."""

from __future__ import annotations

from wetread.models.card import BundleCard, Card, ReaderCard
from wetread.types import Estimate

__all__ = ["card_readme"]


def _estimate(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"not available ({estimate.note})"
    interval = (
        f" ({estimate.low:.3f} to {estimate.high:.3f})"
        if estimate.low is not None and estimate.high is not None
        else f" ({estimate.note or 'no interval'})"
    )
    return f"{estimate.value:.3f}{interval}, n={estimate.n}"


def _front_matter(card: Card) -> list[str]:
    return [
        "---",
        "library_name: wetread",
        f"pipeline_tag: image-{'classification' if isinstance(card, ReaderCard) else 'segmentation'}",
        f"license: {card.licence.lower()}",
        "tags: [medical-imaging, radiograph, research-use-only]",
        "---",
    ]


def card_readme(card: Card) -> str:
    """Return the Markdown page of a reader or a segmenter."""
    size = f"{card.networks} network(s), input {card.input.height}x{card.input.width}"
    if isinstance(card, ReaderCard):
        what = f"- Reads: {', '.join(card.labels)} ({card.task}; classes {', '.join(card.classes)})"
    else:
        what = f"- Finds: {', '.join(card.organs)}"
    lines = [
        *_front_matter(card),
        f"# {card.name} {card.version}",
        "",
        f"**{card.intended_use}**",
        "",
        what,
        f"- Network: {card.architecture}, {size}",
        *_origin(card),
        "",
        "## Known limits",
        "",
        *[f"- {limit}" for limit in card.limits or ("None recorded, which does not mean none exist.",)],
        "",
        *(_points(card) if isinstance(card, ReaderCard) else ()),
        "## Figures",
        "",
        "| metric | split | operating point | value (95 % interval) |",
        "|---|---|---|---|",
        *[
            f"| {row.name} | {row.split} | {row.operating_point or '-'} | {_estimate(row.estimate)} |"
            for row in card.metrics
        ],
        "",
        "Made by wetread from `card.json`; edit that file's source, not this page.",
        "",
    ]
    return "\n".join(lines)


def _origin(card: BundleCard) -> list[str]:
    data = card.data
    return [
        f"- Data: {data.name}, {data.images} images of {data.patients} patients, licence {data.licence}",
        f"- Population: {data.population}",
        f"- Audit verdict: {card.audit_verdict}",
        f"- Weights sha256: `{card.sha256}`",
    ]


def _points(card: ReaderCard) -> list[str]:
    return [
        "## Operating points (chosen on the validation split)",
        "",
        "| name | label | threshold | rule | sensitivity | specificity |",
        "|---|---|---|---|---|---|",
        *[
            f"| {p.name} | {p.label} | {p.threshold:.4f} | {p.rule} "
            f"| {_estimate(p.sensitivity)} | {_estimate(p.specificity)} |"
            for p in card.operating_points
        ],
        "",
    ]
