"""Audits of real readers: the shipped ones on the data they come from, and the COVID reader that must fail.

Every answer of every line is a row; pages and pictures go below ``--pages``. The reader's card is not touched: the
verdicts on shipped cards are written by ``recipes.ship``.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path

from benchmarks.common import arguments, machine
from benchmarks.kermany import progress
from wetread.audit.result import AuditResult
from wetread.audit.run import Question, audit
from wetread.datasets.manifest import load_manifest
from wetread.models.bundle import load_finder, load_reader
from wetread.provenance import atomic_file
from wetread.reading.gate import judge
from wetread.reporting.html import render_audit
from wetread.runtime import prepare_torch

COLUMNS = ("reader", "data", "line", "answer", "sentence", "n", "seconds")
_BAR_S = 600


def main() -> None:
    parser = arguments(__doc__, "results/audits.csv")
    parser.add_argument("--kermany", type=Path, required=True, help="dataset folder of `make kermany`")
    parser.add_argument("--covid", type=Path, required=True, help="work folder of `make covid`")
    parser.add_argument("--pages", type=Path, default=Path("runs/audits"), help="where the pages go")
    parser.add_argument("--readers", nargs="+", help="only these")
    asked = parser.parse_args()
    prepare_torch()
    plan = {
        "chest-pneumonia": ("chest-pneumonia", asked.kermany, None),
        "chest-pneumonia-lungs": ("chest-pneumonia-lungs", asked.kermany, None),
        "chest-three": (asked.covid / "chest-three", asked.covid / "seen", asked.covid / "unseen"),
    }
    rows: list[dict[str, object]] = []
    for name, (reader, data, outside) in plan.items():
        if asked.readers and name not in asked.readers:
            continue
        rows += audited(name, reader, data, outside, asked.pages)
    facts = machine()
    with atomic_file(asked.out) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*COLUMNS, *facts], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | facts for row in rows)


def audited(name: str, reader: str | Path, data: Path, outside: Path | None, pages: Path) -> list[dict[str, object]]:
    """Audit one reader, write its page, and return a row for each line and one for the whole."""
    begin = time.perf_counter()
    question = Question(gate=judge, finder=load_finder("lungs", "lungs"), outside=outside)
    found = audit(load_reader(reader), load_manifest(data), question, {"wetread": machine()["wetread"]}, progress)
    seconds = time.perf_counter() - begin
    folder = pages / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.html").write_text(render_audit(found.result, found.pictures), encoding="utf-8")
    (folder / "audit.json").write_text(found.result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    rows = rows_of(name, found.result)
    limit = "met" if seconds <= _BAR_S else "missed"
    whole = f"{found.result.headline}; bar of {_BAR_S} s {limit}"
    rows.append({"reader": name, "data": found.result.data, "line": "whole audit", "answer": found.result.verdict,
                 "sentence": whole, "n": found.result.n, "seconds": round(seconds, 1)})  # fmt: skip
    for row in rows:
        print(row["line"], row["answer"], row["sentence"], row["seconds"], sep="\t", flush=True)
    return rows


def rows_of(name: str, result: AuditResult) -> list[dict[str, object]]:
    """One row for each line."""
    return [
        {
            "reader": name,
            "data": result.data,
            "line": f"{line.code} {line.question}",
            "answer": line.answer,
            "sentence": line.sentence,
            "n": line.n,
            "seconds": result.seconds.get(line.code, 0.0),
        }
        for line in result.lines
    ]


if __name__ == "__main__":
    main()
