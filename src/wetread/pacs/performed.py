"""What a performer writes into a workitem: the performed procedure, its output, or why there is none.

These are the elements that PS3.4 table CC.2.5-3 requires in the final states, the same over DIMSE and the web.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wetread.pacs.facts import PRIVATE_SCHEME

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Output", "code", "performed", "references"]

_CODE_VALUE, _CODE_MEANING, _REASON = 16, 64, 1024
"""Most characters that a code, its meaning and a reason get."""


@dataclass(frozen=True, slots=True)
class Output:
    """One result that was made for a workitem."""

    study: str
    series: str
    sop_class: str
    sop_instance: str


def performed(station: str, work: str, times: tuple[str, str], outputs: Sequence[Output], reason: str = "") -> Dataset:
    """The performed procedure with its output; with a ``reason``, also that it was cancelled.

    Args:
        station: Who performed it.
        work: What was done, in words.
        times: When it began and ended, as DICOM date and time.
        outputs: What was made.
        reason: Why nothing could be; empty where it was completed.
    """
    from pydicom.dataset import Dataset

    procedure, told = Dataset(), Dataset()
    procedure.PerformedStationNameCodeSequence = [code(station)]
    procedure.PerformedProcedureStepStartDateTime, procedure.PerformedProcedureStepEndDateTime = times
    procedure.PerformedWorkitemCodeSequence = [code("read", work)]
    procedure.OutputInformationSequence = references(outputs)
    told.UnifiedProcedureStepPerformedProcedureSequence = [procedure]
    if reason:
        progress = Dataset()
        progress.ProcedureStepCancellationDateTime = times[1]
        progress.ReasonForCancellation = reason[:_REASON]
        progress.ProcedureStepDiscontinuationReasonCodeSequence = [code("not read", "Not read")]
        told.ProcedureStepProgressInformationSequence = [progress]
    return told


def references(outputs: Sequence[Output]) -> list[Dataset]:
    """The results by series (PS3.3 table 10-3b)."""
    from pydicom.dataset import Dataset

    by_series: dict[tuple[str, str], Dataset] = {}
    for output in outputs:
        series = by_series.setdefault((output.study, output.series), Dataset())
        series.TypeOfInstances = "DICOM"
        series.StudyInstanceUID, series.SeriesInstanceUID = output.study, output.series
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = output.sop_class, output.sop_instance
        series.ReferencedSOPSequence = [*(series.get("ReferencedSOPSequence") or []), item]
    return list(by_series.values())


def code(value: str, meaning: str = "") -> Dataset:
    """A code of our own scheme; its value is cut to what the standard allows."""
    from pydicom.dataset import Dataset

    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator = value[:_CODE_VALUE], PRIVATE_SCHEME
    made.CodeMeaning = (meaning or value)[:_CODE_MEANING]
    return made
