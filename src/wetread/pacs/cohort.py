"""A cohort from an archive, de-identified on the way in: find the studies, fetch one, clean it, forget it, next.

Decided here: what comes from the archive lies in a folder that its owner alone may enter, for one study at a time, and
is deleted before the next is asked for. The ledger names studies by keyed tokens, so it may lie beside the result. A
study is in it only when all its objects were taken; whatever stops the run, the next one goes on there. A study that
does not come is tried three times and then left for the next run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wetread.deid.batch import Run
from wetread.errors import PeerUnreachable, UsageError, expected
from wetread.pacs import client, web
from wetread.provenance import disk_errors
from wetread.settings import NodeRemote

__all__ = ["LEDGER", "Archive", "Pulled", "find_cohort", "pull_cohort"]

LEDGER = "cohort.jsonl"
_TRIES = 3
_FIRST_WAIT_S = 2.0


@dataclass(frozen=True)
class Archive:
    """Where studies come from: a remote, our own title, and how many studies a minute may be asked of it.

    ``wait``: called with seconds; tests hand in their own.
    """

    remote: NodeRemote
    title: str
    per_minute: float = 30.0
    wait: Callable[[float], None] = time.sleep


@dataclass
class Pulled:
    """What a pull did: studies by what became of them, and objects that came."""

    done: int = 0
    already: int = 0
    objects: int = 0
    failed: list[str] = field(default_factory=list)


def find_cohort(archive: Archive, filters: Mapping[str, str], limit: int) -> list[str]:
    """Study Instance UIDs that answer a query, in a fixed order.

    Raises:
        UsageError: no filter (that would be the whole archive), or a keyword that DICOM does not have.
        PeerUnreachable: no answer, or a refusal.
    """
    if not filters:
        cure = "name the cohort, for example --query ModalitiesInStudy=CR --query StudyDate=20260101-"
        raise UsageError(expected("at least one --query", "none", cure))
    remote = archive.remote
    if remote.web:
        rows = web.find(remote.web, filters, limit, proof=web.authorization(remote.authorization))
    else:
        rows = client.find(remote, archive.title, filters, limit)
    return sorted({row["StudyInstanceUID"] for row in rows if row.get("StudyInstanceUID")})


def pull_cohort(
    archive: Archive, studies: list[str], run: Run, advance: Callable[[int, int], None] = lambda done, total: None
) -> Pulled:
    """Fetch and de-identify studies one after the other.

    Args:
        archive: Where from.
        studies: Study Instance UIDs.
        run: The de-identification into the result; not a dry run.
        advance: Called with (done, total) studies.

    Returns:
        What was done; ``failed`` holds a reason for each study that did not come, and no UID.

    Raises:
        WetreadError: the disk is full or may not be written.
    """
    pulled = Pulled()
    known = _known(run.out / LEDGER)
    last = float("-inf")
    for number, study in enumerate(studies, 1):
        token = run.setup.key.token("study", study)
        if token in known:
            pulled.already += 1
        else:
            archive.wait(max(0.0, last + 60.0 / archive.per_minute - time.monotonic()))
            last = time.monotonic()
            _pull(archive, study, token, run, pulled)
        advance(number, len(studies))
    return pulled


def _pull(archive: Archive, study: str, token: str, run: Run, pulled: Pulled) -> None:
    inbox = Path(tempfile.mkdtemp(dir=run.scratch, prefix="study-"))
    try:
        files = _fetched(archive, study, inbox)
        for file in files:
            run.take(file, shown=f"study {token}")
        pulled.objects += len(files)
        pulled.done += 1
        with disk_errors(run.out), (run.out / LEDGER).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"study": token, "objects": len(files)}) + "\n")
    except PeerUnreachable as error:
        pulled.failed.append(str(error))
    finally:
        shutil.rmtree(inbox, ignore_errors=True)


def _fetched(archive: Archive, study: str, inbox: Path) -> list[Path]:
    """The files of a study; an archive that is busy is asked again, twice."""
    for attempt in range(_TRIES - 1):
        try:
            return _asked(archive, study, inbox)
        except PeerUnreachable:
            archive.wait(_FIRST_WAIT_S * 2**attempt)
    return _asked(archive, study, inbox)


def _asked(archive: Archive, study: str, inbox: Path) -> list[Path]:
    remote = archive.remote
    if remote.web:
        files = web.get_study(remote.web, study, inbox, proof=web.authorization(remote.authorization))
    else:
        files = client.get_study(remote, archive.title, study, inbox)
    if not files:
        raise PeerUnreachable(expected("the objects of a study", "none", "ask the archive whether we may fetch"))
    return sorted(files)


def _known(ledger: Path) -> set[str]:
    if not ledger.is_file():
        return set()
    found = set()
    for line in ledger.read_text(encoding="utf-8").splitlines():
        try:
            found.add(str(json.loads(line)["study"]))
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a run that was killed
    return found
