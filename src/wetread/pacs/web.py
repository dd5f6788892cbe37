"""The same over DICOMweb: QIDO-RS, WADO-RS and STOW-RS by dicomweb-client, and FHIR by plain HTTP.

Decided here: objects are asked for in the encoding they are stored in, because a default of Explicit VR makes some
servers transcode and fail; a URL must be http or https and hold no password, because URLs are printed; what proves
who we are comes from a file; no redirect is followed, so that data go where the operator said and nowhere else.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wetread.errors import PeerUnreachable, UsageError, expected
from wetread.imaging.header import quiet
from wetread.pacs.client import FIND_KEYS, texts
from wetread.provenance import atomic_file

__all__ = ["authorization", "find", "get_study", "post_fhir", "require_url", "send_files"]

_TIMEOUT_S = 30
_AS_STORED = (("application/dicom", "*"),)


def require_url(url: str) -> str:
    """Return ``url`` without a slash at its end.

    Raises:
        UsageError: it is not http or https, or holds a password.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(expected("a URL that begins with http:// or https://", f"'{url}'", "correct it"))
    if "@" in urllib.parse.urlsplit(url).netloc:
        raise UsageError(expected("a URL without a password", "one with", "put it in the file of 'authorization'"))
    return url.rstrip("/")


def authorization(file: Path | None) -> str:
    """The value of the Authorization header that ``file`` holds, empty without one.

    Raises:
        UsageError: it cannot be read, or is not one line of ASCII.
    """
    if file is None:
        return ""
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        got = f"{type(error).__name__} at {file}"
        raise UsageError(expected("a file with an Authorization header", got, "check the file")) from None
    if not text or not text.isprintable():
        cure = "write one line such as: Bearer ..."
        raise UsageError(expected("one line in the file of 'authorization'", f"something else in {file}", cure))
    return text


def find(url: str, filters: Mapping[str, str], limit: int = 100, *, proof: str = "") -> list[dict[str, str]]:
    """Query studies by QIDO-RS; see :func:`wetread.pacs.client.find`. ``proof``: see :func:`authorization`.

    Raises:
        PeerUnreachable: no answer, or a refusal.
    """
    from pydicom.dataset import Dataset

    with _answers(url, proof) as client:
        rows = client.search_for_studies(limit=limit, fields=list(FIND_KEYS), search_filters=dict(filters))
    with quiet():
        try:
            return [texts(Dataset.from_json(row)) for row in rows]
        except Exception:  # pydicom lets many classes escape for an answer that is none
            raise _unreachable(url, "an answer that is no DICOM JSON") from None


def get_study(url: str, study: str, folder: Path, *, proof: str = "") -> list[Path]:
    """Fetch a study by WADO-RS into ``folder``; names are hashes of instance UIDs.

    Raises:
        PeerUnreachable: no answer, or a refusal.
    """
    files: list[Path] = []
    with _answers(url, proof) as client:
        for data in client.iter_study(study, media_types=_AS_STORED):
            with quiet():
                data.preamble = bytes(128)  # a peer's could hide a program
                path = folder / f"{hashlib.sha256(str(data.SOPInstanceUID).encode()).hexdigest()}.dcm"
                with atomic_file(path) as part:
                    data.save_as(part, enforce_file_format=True)
            files.append(path)
    return files


def send_files(url: str, files: Sequence[Path], *, proof: str = "") -> dict[Path, str]:
    """Send files by STOW-RS one at a time; return those that were not taken, each with the reason.

    Raises:
        PeerUnreachable: nobody is there.
    """
    from pydicom import dcmread

    failed: dict[Path, str] = {}
    for path in files:
        with quiet():
            data = dcmread(path)
        with _answers(url, proof) as client:
            answer = client.store_instances([data])
        rejected = answer.get("FailedSOPSequence") or []
        reasons = [int(item.get("FailureReason", 0)) for item in rejected]
        if reasons and reasons != [0x0111]:
            failed[path] = f"failure reason {reasons[0]:04X}"
    return failed


def post_fhir(url: str, bundle: bytes, *, proof: str = "") -> str:
    """POST a FHIR transaction; return why it was not taken, or nothing.

    Raises:
        PeerUnreachable: nobody is there.
    """
    headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
    headers |= {"Authorization": proof} if proof else {}
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
def _answers(url: str, proof: str) -> Iterator[Any]:
    from dicomweb_client.session_utils import create_session
    from dicomweb_client.web import DICOMwebClient

    base, session = require_url(url), create_session()
    session.max_redirects = 0
    try:
        headers = {"Authorization": proof} if proof else None
        client = DICOMwebClient(base, session=session, headers=headers, timeout=_TIMEOUT_S)
        # Its default tries what fails five times in half a minute: a person waits, and the outbox tries again anyway.
        client.set_http_retry_params(max_attempts=2, wait_exponential_multiplier=250)
        yield client
    except OSError as error:  # the exceptions of requests, on which the client is built
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise _unreachable(url, f"HTTP status {status}" if status else type(error).__name__) from None
    finally:
        session.close()


def _unreachable(url: str, got: str) -> PeerUnreachable:
    return PeerUnreachable(expected(f"an answer from {url}", got, "check the address and that the service runs"))
