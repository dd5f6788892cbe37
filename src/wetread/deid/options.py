"""What may stay in a de-identified file, in the words of PS3.15 E.3, and the codes that say so in the file.

Decided here: dates stay, moved by one number of days for each patient; everything else that an option could keep goes
unless it is asked for. The codes are those of CID 7050, and one is written only for what was really done.
"""

from __future__ import annotations

from pydantic import Field

from wetread.types import Record

__all__ = ["METHODS", "Options", "method_codes"]

METHODS = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113104": "Clean Structured Content Option",
    "113105": "Clean Descriptors Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113109": "Retain Device Identity Option",
    "113110": "Retain UIDs Option",
    "113111": "Retain Safe Private Option",
}
"""CID 7050, De-identification Method: code -> meaning, as far as wetread does it."""


class Options(Record):
    """The options of PS3.15 E.3 beside the Basic Profile."""

    retain_dates: bool = Field(default=True, description="dates stay, moved by a number of days for each patient")
    retain_uids: bool = Field(default=False, description="UIDs stay as they are")
    retain_device: bool = Field(default=False, description="serial numbers and names of devices stay")
    retain_patient_characteristics: bool = Field(default=False, description="sex, age, size and weight stay")
    retain_private: bool = Field(default=True, description="private numbers that PS3.15 E.3.10 lists stay")
    clean_descriptors: bool = Field(default=False, description="descriptions stay where nothing identifying is found")


def method_codes(options: Options, *, pixels: bool, content: bool, private: bool) -> tuple[str, ...]:
    """The codes of CID 7050 for one file.

    Args:
        options: What was asked for.
        pixels: Whether every frame was searched for text.
        content: Whether the content tree of a structured report was cleaned.
        private: Whether a private attribute stayed.
    """
    done = {
        "113100": True,
        "113101": pixels,
        "113104": content,
        "113105": options.clean_descriptors,
        "113107": options.retain_dates,
        "113108": options.retain_patient_characteristics,
        "113109": options.retain_device,
        "113110": options.retain_uids,
        "113111": private,
    }
    return tuple(code for code, true in done.items() if true)
