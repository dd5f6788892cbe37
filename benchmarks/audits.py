"""Audits of real readers: the shipped ones on the data they come from, and the COVID reader that must fail.

Every answer of every line is a row; pages and pictures go below ``--pages``. The reader's card is not touched: the
verdicts on shipped cards are written by ``recipes.ship``. With ``--recorded`` the rows are those of audits of the same
weights that lie in ``--pages`` already, and rows of readers that were not asked for stay as they are: each names its
own commit and date.
"""

from __future__ import annotations

import csv
import json
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
    parser.add_argument("--readers", nargs="+", help="only these; rows of others stay")
    parser.add_argument("--recorded", action="store_true", help="take audits of these weights that are there")
    asked = parser.parse_args()
    prepare_torch()
    plan = {
        "chest-pneumonia": ("chest-pneumonia", asked.kermany, None),
        "chest-pneumonia-lungs": ("chest-pneumonia-lungs", asked.kermany, None),
        "chest-three": (asked.covid / "chest-three", asked.covid / "seen", asked.covid / "unseen"),
    }
    wanted = asked.readers or list(plan)
    rows = [row for row in rows_there(asked.out) if row["reader"] not in wanted]
    for name, (reader, data, outside) in plan.items():
        if name not in wanted:
            continue
        found = recorded(name, reader, asked.pages) if asked.recorded else []
        rows += found or [row | machine() for row in audited(name, reader, data, outside, asked.pages)]
        write_rows(asked.out, rows)


def rows_there(out: Path) -> list[dict[str, object]]:
    """The rows of an earlier run; none without one."""
    if not out.is_file():
        return []
    with out.open(newline="", encoding="utf-8") as stream:
        return [dict(row) for row in csv.DictReader(stream)]


def write_rows(out: Path, rows: list[dict[str, object]]) -> None:
    """All rows, each with what it was measured on."""
    with atomic_file(out) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def recorded(name: str, reader: str | Path, pages: Path) -> list[dict[str, object]]:
    """The rows of the audit in ``pages``; none if it is not there, or of other weights."""
    file = pages / name / "rows.json"
    audit_file = pages / name / "audit.json"
    if not file.is_file() or not audit_file.is_file():
        return []
    result = AuditResult.model_validate_json(audit_file.read_text(encoding="utf-8"))
    same = result.reader.sha256 == load_reader(reader).card.sha256
    return list(json.loads(file.read_text(encoding="utf-8"))) if same else []


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
    (folder / "rows.json").write_text(json.dumps([row | machine() for row in rows], indent=2) + "\n", encoding="utf-8")
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
