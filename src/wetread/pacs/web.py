"""The same over DICOMweb: QIDO-RS, WADO-RS and STOW-RS by dicomweb-client, and FHIR by plain HTTP.

Decided here: objects are asked for in the encoding they are stored in, because a default of Explicit VR makes some
servers transcode and fail; a URL must be http or https; redirects of a FHIR server are not followed.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wetread.errors import PeerUnreachable, UsageError, expected
from wetread.imaging.header import quiet
from wetread.pacs.client import FIND_KEYS
from wetread.provenance import atomic_file

__all__ = ["find", "get_study", "post_fhir", "require_url", "send_files"]

_TIMEOUT_S = 30
_AS_STORED = (("application/dicom", "*"),)


def require_url(url: str) -> str:
    """Return ``url`` without a slash at its end.

    Raises:
        UsageError: it is not http or https.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(expected("a URL that begins with http:// or https://", f"'{url}'", "correct it"))
    return url.rstrip("/")


def find(url: str, filters: Mapping[str, str], limit: int = 100) -> list[dict[str, str]]:
    """Query studies by QIDO-RS; see :func:`wetread.pacs.client.find`.

    Raises:
        PeerUnreachable: no answer, or a refusal.
    """
    from pydicom.dataset import Dataset

    with _answers(url) as client:
        rows = client.search_for_studies(limit=limit, fields=list(FIND_KEYS), search_filters=dict(filters))
    with quiet():
        data = [Dataset.from_json(row) for row in rows]
        return [{element.keyword: str(element.value) for element in one if element.keyword} for one in data]


def get_study(url: str, study: str, folder: Path) -> list[Path]:
    """Fetch a study by WADO-RS into ``folder``; names are hashes of instance UIDs.

    Raises:
        PeerUnreachable: no answer, or a refusal.
    """
    files: list[Path] = []
    with _answers(url) as client:
        for data in client.iter_study(study, media_types=_AS_STORED):
            path = folder / f"{hashlib.sha256(str(data.SOPInstanceUID).encode()).hexdigest()}.dcm"
            with quiet(), atomic_file(path) as part:
                data.save_as(part, enforce_file_format=True)
            files.append(path)
    return files


def send_files(url: str, files: Sequence[Path]) -> dict[Path, str]:
    """Send files by STOW-RS one at a time; return those that were not taken, each with the reason.

    Raises:
        PeerUnreachable: nobody is there.
    """
    from pydicom import dcmread

    failed: dict[Path, str] = {}
    for path in files:
        with quiet():
            data = dcmread(path)
        with _answers(url) as client:
            answer = client.store_instances([data])
        rejected = answer.get("FailedSOPSequence") or []
        reasons = [int(item.get("FailureReason", 0)) for item in rejected]
        if reasons and reasons != [0x0111]:
            failed[path] = f"failure reason {reasons[0]:04X}"
    return failed


def post_fhir(url: str, bundle: bytes) -> str:
    """POST a FHIR transaction; return why it was not taken, or nothing.

    Raises:
        PeerUnreachable: nobody is there.
    """
    headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
    request = urllib.request.Request(require_url(url), bundle, headers, method="POST")  # noqa: S310 - checked above
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            return "" if 200 <= answer.status < 300 else f"status {answer.status}"
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except OSError as error:
        raise _unreachable(url, type(error).__name__) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow nothing: patient data go where the operator said, and nowhere else."""


@contextmanager
def _answers(url: str) -> Iterator[Any]:
    from dicomweb_client.web import DICOMwebClient

    try:
        yield DICOMwebClient(require_url(url), timeout=_TIMEOUT_S)
    except OSError as error:  # the exceptions of requests, on which the client is built
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise _unreachable(url, f"HTTP status {status}" if status else type(error).__name__) from None


def _unreachable(url: str, got: str) -> PeerUnreachable:
    return PeerUnreachable(expected(f"an answer from {url}", got, "check the address and that the service runs"))
