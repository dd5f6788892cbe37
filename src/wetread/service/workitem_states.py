"""The states of a workitem and what may follow what: PS3.4 table CC.1.1-2 as data, with the words of PS3.18 11.7.

Decided here: which refusal is 400 and which 409, as the tables of PS3.18 have it: a transaction UID that is missing
or wrong is 400, a request that the state does not allow 409. The message says which status DIMSE would have given.
"""

from __future__ import annotations

import hmac

from wetread.service.dicom_json import is_uid
from wetread.service.problems import Problem

__all__ = [
    "ALREADY",
    "CANCELED",
    "CHANGE",
    "COMPLETED",
    "FINAL",
    "IN_PROGRESS",
    "SCHEDULED",
    "STATES",
    "TRANSITIONS",
    "already",
    "check_lock",
    "decide",
    "inconsistent",
]

SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED = "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"
STATES = (SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED)
FINAL = (COMPLETED, CANCELED)
CHANGE, ALREADY = "change", "already"

TRANSITIONS: dict[tuple[str, str], str] = {
    (IN_PROGRESS, SCHEDULED): CHANGE,
    (IN_PROGRESS, IN_PROGRESS): "C302",
    (IN_PROGRESS, COMPLETED): "C300",
    (IN_PROGRESS, CANCELED): "C300",
    (COMPLETED, SCHEDULED): "C310",
    (COMPLETED, IN_PROGRESS): CHANGE,
    (COMPLETED, COMPLETED): ALREADY,
    (COMPLETED, CANCELED): "C300",
    (CANCELED, SCHEDULED): "C310",
    (CANCELED, IN_PROGRESS): CHANGE,
    (CANCELED, COMPLETED): "C300",
    (CANCELED, CANCELED): ALREADY,
}
"""(state that is asked for, state that it has) -> what happens, for who knows the transaction UID."""

_MEANING = {
    "C300": "The workitem may no longer be updated",
    "C302": "The workitem is already in progress",
    "C303": "A workitem becomes scheduled by being created only",
    "C310": "The workitem is not yet in progress",
}
_INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance."
_MISSING, _INCORRECT = "The Transaction UID is missing.", "The Transaction UID is incorrect."


def decide(asked: str, state: str, given: str, lock: str | None) -> str:
    """What a request to change the state does: :data:`CHANGE` or :data:`ALREADY`.

    Args:
        asked: The state that is asked for.
        state: The state that the workitem has.
        given: The transaction UID of the request.
        lock: That of the workitem, None before it was claimed.

    Raises:
        Problem: ``bad_request``, ``conflict``.
    """
    if asked == SCHEDULED:
        raise Problem("bad_request", f"{_MEANING['C303']} (C303).", warning=_INCONSISTENT)
    if asked not in STATES:
        wanted = f"expected a Procedure Step State of {IN_PROGRESS}, {COMPLETED} or {CANCELED}, got another"
        raise Problem("bad_request", wanted, warning=_INCONSISTENT)
    check_lock(state, given, lock)
    outcome = TRANSITIONS[asked, state]
    if outcome not in (CHANGE, ALREADY):
        raise Problem("conflict", f"{_MEANING[outcome]} ({outcome}).", warning=_INCONSISTENT)
    return outcome


def check_lock(state: str, given: str, lock: str | None) -> None:
    """Refuse a request without the transaction UID, or with another one than the performer's.

    Raises:
        Problem: ``bad_request``.
    """
    if not given:
        hint = "Send the Transaction UID (0008,1195) that the workitem was claimed with."
        raise Problem("bad_request", "The Transaction UID is missing (C301).", hint, warning=_MISSING)
    if not is_uid(given):
        raise Problem("bad_request", "expected a UID as Transaction UID, got something else", warning=_INCORRECT)
    if state != SCHEDULED and not hmac.compare_digest(given, lock or ""):
        hint = "Another performer has claimed the workitem; take the next one."
        raise Problem("bad_request", "The Transaction UID is incorrect (C301).", hint, warning=_INCORRECT)


def already(state: str) -> str:
    """The warning for a workitem that is in the state already (PS3.18 11.7.3.2)."""
    return f"The UPS is already in the requested state of {state}."


def inconsistent(message: str, hint: str = "") -> Problem:
    """A request that the state does not allow."""
    return Problem("conflict", message, hint, warning=_INCONSISTENT)
