"""Similar cases on real radiographs: the official Kermany test images ask an index of the training images.

A case is relevant if it has the label of the query. The trained reader has learned that label from the very training
images that are answered with; the frozen backbone has seen ImageNet alone. The published figures beside ours are of
the same 624 images (PneumoniaMNIST at 224 px, Mahbod et al.); their mean average precision is above their accuracy at
1, which that over the relevant answers alone can be and the stricter one cannot: so the bar stands at ``over hits``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.common import Figure, arguments, write_figures
from wetread.datasets.manifest import Manifest, load_manifest
from wetread.evaluation.retrieval import RetrievalResult
from wetread.models.bundle import load_reader
from wetread.retrieval.cases import EmbedPlan, cases_of
from wetread.retrieval.evaluate import Judgement, evaluate_index, own_queries, queries_of
from wetread.retrieval.index import FolderIndex
from wetread.retrieval.where import parse_where
from wetread.retrieval.write import build_index
from wetread.runtime import prepare_torch
from wetread.types import Estimate

K = 5
PROTOCOL = (
    "{n} official test images of {patients} patients against {cases} training images (official train split less the "
    "15 % for validation); relevant: the same of two labels; all images, the patient asked about left out; interval: "
    "bootstrap over patients"
)
OWN = (
    "the {cases} training images ask each other, each without its patient; the trained reader learned their labels, "
    "so that its figures flatter; interval: bootstrap over patients"
)
BARS = {"map_found": ">= 0.95", "accuracy_at_1": ">= 0.94"}
WORDS = {
    "map_found": f"mAP@{K} over hits",
    "map": f"mAP@{K}",
    "accuracy_at_1": "accuracy at 1",
    "precision": f"precision@{K}",
    "recall": f"recall@{K}",
    "ndcg": f"nDCG@{K}",
    "knn_accuracy": f"kNN accuracy, k = {K}",
}
PUBLISHED = (
    ("MedCLIP, frozen", 0.9444, 0.9359),
    ("BiomedCLIP, frozen", 0.9240, 0.8974),
    ("UNI, frozen", 0.9138, 0.8990),
    ("ResNet50, ImageNet, frozen", 0.8989, 0.8701),
    ("DenseNet121, ImageNet, frozen", 0.8958, 0.8750),
)


def main() -> None:
    parser = arguments(__doc__, "results/retrieval.csv")
    parser.add_argument("--dataset", type=Path, required=True, help="imported and split Kermany data set")
    parser.add_argument("--readers", nargs="+", default=["chest-pneumonia"], help="trained readers, with the bars")
    parser.add_argument("--frozen", nargs="*", default=[], help="readers on a frozen backbone, without bars")
    parser.add_argument("--cache", type=Path, help="folder of cached features")
    asked = parser.parse_args()
    prepare_torch()
    manifest = load_manifest(asked.dataset)
    figures: list[Figure] = []
    for name in [*asked.readers, *asked.frozen]:
        figures += measure(name, manifest, asked.cache, bars=name in asked.readers)
    figures += published()
    write_figures(asked.out, figures)
    for figure in figures:
        around = "" if figure.low is None or figure.high is None else f"({figure.low:.4f} to {figure.high:.4f})"
        print(f"{figure.what:66} {figure.value:.4f} {around:20} {figure.bar:8} {figure.met}")


def measure(name: str, manifest: Manifest, cache: Path | None, *, bars: bool) -> list[Figure]:
    """Build an index of the training images in a folder of its own and ask it with the test images."""
    reader = load_reader(name)
    plan = EmbedPlan(where=parse_where("split=train"), cache=cache)
    with tempfile.TemporaryDirectory() as scratch:
        cases = cases_of(reader, manifest, plan)
        build_index(Path(scratch) / "cases", cases.head, cases.rows, cases.vectors)
        index = FolderIndex(Path(scratch) / "cases")
        tests = queries_of(reader, manifest, index, EmbedPlan(where=parse_where("split=test"), cache=cache))
        result = evaluate_index(index, tests, Judgement(K))
        own = evaluate_index(index, own_queries(index), Judgement(K))
    title = Path(name).name
    return [*figures_of(title, result, BARS if bars else {}), *leakage_of(title, own)]


def figures_of(title: str, result: RetrievalResult, bars: dict[str, str]) -> list[Figure]:
    """One figure for each metric of all queries, those of each class, and what random answers would give."""
    protocol = PROTOCOL.format(n=result.n, patients=result.patients, cases=result.cases)
    figures = [
        _figure(f"{title}: {words}", result.overall[key], protocol, bars.get(key, "")) for key, words in WORDS.items()
    ]
    for label, found in result.by_class.items():
        figures += [
            _figure(f"{title}: {WORDS[key]}, {label}", found[key], protocol) for key in ("map_found", "accuracy_at_1")
        ]
    return figures + [
        Figure(f"{title}: {words}, by chance", result.chance[key], "share", f"random answers; {protocol}", result.n)
        for key, words in WORDS.items()
        if key in result.chance
    ]


def leakage_of(title: str, own: RetrievalResult) -> list[Figure]:
    """What leaving the patient out is worth: the training images ask each other with and without."""
    leak = own.leakage
    if leak is None:
        return []
    protocol = OWN.format(cases=own.cases)
    change = leak.with_own["map"] - leak.without["map"]
    return [
        _figure(f"{title}: mAP@{K} of the training images", own.overall["map"], protocol),
        _figure(f"{title}: nearest is of the same patient, if allowed", leak.nearest, protocol),
        Figure(f"{title}: mAP@{K} gained by the same patient, if allowed", change, "difference", protocol, own.n),
    ]


def published() -> list[Figure]:
    """Figures of others on the same test images."""
    protocol = "as published for PneumoniaMNIST at 224 px (Mahbod et al., supplement): quoted, not measured here"
    pairs = [(name, values) for name, *values in PUBLISHED]
    return [
        Figure(f"{name}: {what}", value, "share", protocol, 624)
        for name, values in pairs
        for what, value in zip((f"mAP@{K}", "accuracy at 1"), values, strict=True)
    ]


def _figure(what: str, found: Estimate, protocol: str, bar: str = "") -> Figure:
    value = float("nan") if found.value is None else found.value
    return Figure(what, value, "share", protocol, found.n, found.low, found.high, bar)


if __name__ == "__main__":
    main()
