"""The report of a de-identification: JSON and one page, beside the files, without a word of any patient."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wetread.deid.records import DeidReport

__all__ = ["REPORT_HTML", "REPORT_JSON", "write_report"]

REPORT_JSON, REPORT_HTML = "deid-report.json", "deid-report.html"
_MOST_DRAWN = 200


def write_report(report: DeidReport, out: Path) -> None:
    """Write ``deid-report.json`` and ``deid-report.html`` into ``out``."""
    from wetread.provenance import atomic_file, write_json_atomically

    write_json_atomically(out / REPORT_JSON, report)
    with atomic_file(out / REPORT_HTML) as part:
        part.write_text(render(report), encoding="utf-8")


def render(report: DeidReport) -> str:
    """The page: what was done, what was blacked out where, what was quarantined and why."""
    from wetread.deid.options import METHODS, Options
    from wetread.reporting.html import render_page, template_source

    written = [file for file in report.files if file.status == "written"]
    changed = [file for file in written if file.regions]
    codes = Counter(code for file in written for code in file.methods)
    fields = Options.model_fields.items()
    return render_page(
        "deid.html.j2",
        extra_style=template_source("deid.css"),
        report=report,
        written=written,
        changed=changed[:_MOST_DRAWN],
        more=max(0, len(changed) - _MOST_DRAWN),
        regions=sum(len(file.regions) for file in written),
        held=[file for file in report.files if file.status == "quarantined"],
        skipped=Counter(file.reason for file in report.files if file.status == "skipped"),
        methods=[(code, METHODS[code], count) for code, count in sorted(codes.items())],
        options=[(field.description, getattr(report.options, name)) for name, field in fields],
        modalities=Counter(file.modality or "none" for file in written).most_common(),
        scrubbed=sum(file.scrubbed for file in written),
        lossy=sum(file.lossy_source for file in written),
    )
