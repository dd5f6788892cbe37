"""The errors that the service answers with: one shape for all, ``{error: {code, message, hint, request_id}}``.

Decided here: which of wetread's own errors a client may see, under which code and status. A code is for programs
and never changes its meaning; message and hint are for people and never quote what was sent.
"""

from __future__ import annotations

from wetread.errors import (
    BundleRefused,
    ImageRefused,
    InputRefused,
    OverBudget,
    PeerUnreachable,
    UnsupportedImage,
    UsageError,
    WetreadError,
)

__all__ = ["CODES", "Problem", "problem_of"]

CODES: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request cannot be understood as it is."),
    "not_logged_in": (401, "Log in, or send a token that is valid."),
    "csrf": (403, "Send the header X-CSRF-Token that the log-in gave."),
    "forbidden": (403, "Ask for a role or a token that may do this."),
    "not_found": (404, "Check the identifier; it may be in a worklist that you do not see."),
    "not_allowed": (405, "Use a method that this address has."),
    "not_acceptable": (406, "Accept application/dicom+json."),
    "conflict": (409, "Fetch it again and repeat the change on what is there now."),
    "gone": (410, "It was deleted; ask for it anew under another identifier."),
    "too_large": (413, "Send less at once."),
    "unsupported": (415, "Send DICOM, PNG, JPEG or TIFF, or a ZIP of them."),
    "refused": (422, "Correct the file and send it again."),
    "invalid": (422, "Correct the fields that are named."),
    "locked_out": (429, "Wait, then log in with the right password."),
    "too_many": (429, "Wait as many seconds as Retry-After says."),
    "internal": (500, "Tell the administrator the request_id; the log has the place."),
    "not_offered": (501, "See the DICOM conformance statement for what is offered."),
    "disk_full": (507, "Free some space; nothing half-written was left."),
    "unavailable": (503, "Try again in a few seconds."),
}
"""Code -> (HTTP status, the hint that goes with it unless a better one is known)."""


class Problem(WetreadError):
    """An error with a code of :data:`CODES`. ``retry_after_s``: when it makes sense to try again.

    ``warning``: the text that PS3.18 prescribes for the header ``Warning`` of a DICOMweb service.
    """

    def __init__(
        self, code: str, message: str, hint: str = "", retry_after_s: int | None = None, *, warning: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status, usual = CODES[code]
        self.message = message
        self.hint = hint or usual
        self.retry_after_s = retry_after_s
        self.warning = warning


_OF: tuple[tuple[type[WetreadError], str], ...] = (
    (UnsupportedImage, "unsupported"),
    (OverBudget, "too_large"),
    (ImageRefused, "refused"),
    (BundleRefused, "not_found"),
    (InputRefused, "refused"),
    (UsageError, "invalid"),
    (PeerUnreachable, "unavailable"),
)


def problem_of(error: WetreadError) -> Problem:
    """What a client is told of one of wetread's errors; *expected X, got Y; do Z* becomes message and hint."""
    if isinstance(error, Problem):
        return error
    message, _, cure = str(error).partition("; ")
    code = next((code for kind, code in _OF if isinstance(error, kind)), "refused")
    return Problem(code, message, cure[:1].upper() + cure[1:] + "." if cure else "")
