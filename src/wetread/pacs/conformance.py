"""The DICOM Conformance Statement (PS3.2), written from the tables that the code itself uses.

``python -m wetread.pacs.conformance`` prints it; ``docs/dicom-conformance.md`` holds it and a test compares the two.
"""

from __future__ import annotations

import sys

from wetread.pacs.association import Limits
from wetread.pacs.classes import STORAGE_NAMES, TRANSFER_SYNTAXES
from wetread.pacs.client import FIND_KEYS
from wetread.pacs.commitment import MAX_OBJECTS
from wetread.pacs.routing import READABLE
from wetread.pacs.structured_report import FINDING_CODES

__all__ = ["MATCHING", "conformance_statement"]

_HEAD = """\
# DICOM Conformance Statement

wetread receives studies as a Storage SCP, reads radiographs, and returns results as a Storage SCU. It is research
software: no result is a diagnosis, and every result object says so.

This text is made by `python -m wetread.pacs.conformance` from the tables that the code uses; a test compares them.

## 1. Network services

| SOP class | SCU | SCP |
|---|---|---|
| Verification | yes | yes |
| Storage (all classes of section 5) | yes | yes |
| Storage Commitment Push Model | no | yes |
| Study Root Query/Retrieve, FIND | yes | no |
| Study Root Query/Retrieve, GET | yes | no |
| Study Root Query/Retrieve, MOVE | yes | no |
| Unified Procedure Step, Pull | yes | no |

DICOMweb as a client: QIDO-RS (studies), WADO-RS (studies), STOW-RS; redirects are not followed. As an origin server:
the Worklist Service (UPS-RS) of section 10, and WADO-RS of the reports that it tells of.

## 2. Association policies
"""

_POLICIES = """
| what | value |
|---|---|
| application context | 1.2.840.10008.3.1.1.1 |
| implementation class UID | 2.25.302498158263105127352217409413517420921 |
| implementation version name | WETREAD |
| largest PDU received | {pdu} bytes; a longer one is aborted before it is read |
| largest object received | {object} GiB, settable; a larger one is answered A700 |
| associations at once | {associations}, at most {address} from one address, both settable |
| time to ask for an association | {handshake:g} s |
| time for one PDU of a message | {pdu_s:g} s |
| idle time | {idle:g} s, settable |
| asynchronous operations | none (one at a time) |
| called AE title | must be that of the node, unless `node.any_called` |
| calling AE title | any, or those of `node.callers`, each from its own addresses |
| TLS | 1.2 and later, with client certificates where `node.tls_clients` is set; required beyond loopback |

A presentation context is accepted with the first proposed transfer syntax that is listed in section 6. Objects are
stored as they come: nothing is re-encoded, coerced or removed, and the preamble is written as zeros.

## 3. Storage as SCP

| status | when |
|---|---|
| 0000 | the object, its name and its index row are synced to the disk; or the very same object was there already |
| B000 | stored as a further version: other content is known under the same UID (`on_other_bytes = "warn"`) |
| 0111 | not taken, but kept aside: other content is known under the same UID (`on_other_bytes = "refuse"`) |
| A700 | out of resources: disk, reserve, file handles, or an object above the limit; nothing of it is left |
| A900 | UIDs that are none, or a data set of another class or instance than the command, or without study and series |
| C000 | a data set whose header cannot be read within its budget |

## 4. Storage Commitment as SCP

Each object that a request names is hashed again from its file before the answer. The N-EVENT-REPORT goes back on the
same association, or, for a caller that `node.remotes` knows with a port, on an association of our own, with retries.

| event | when |
|---|---|
| 1 | every object is there, byte for byte |
| 2 | some are not: failure reason 0112 (unknown), 0119 (other class), 0110 (bytes damaged or gone) |

A request that cannot be understood, or names more than {objects:,} objects, is answered 0115.
"""

_RESULTS = """
## 7. Result objects

| object | SOP class | content |
|---|---|---|
| report | Comprehensive 3D SR, TID 1500 | label, probability, decision, boxes, sizes, algorithm; unverified |
| organs | Segmentation, BINARY | organ masks |
| heat map | Segmentation, FRACTIONAL | relative evidence, no probability |
| marks | Grayscale Softcopy Presentation State | boxes with labels, warnings |
| picture | Secondary Capture | heat map on the film, with the research-use banner burned in |
| page | Encapsulated PDF | one page with the answer |

All lie in the study of their image, each kind in a series of its own. Instance UIDs (root 2.25) follow from the image,
the hash of the reader's weights and the answer: a second run makes the same UIDs. A reader whose audit failed is marked
`AUDIT FAIL` in series description, text and picture. Probabilities are (111012, DCM, Certainty of Finding) in per cent.
Codes without a public scheme are of scheme 99WETREAD.
"""


_WORK = """
## 9. Unified Procedure Step as SCU

The node is a performer that pulls (IHE AI Workflow, RAD-81, 82, 84 and 85) from the remotes in `node.worklists`.

| service | use |
|---|---|
| C-FIND | workitems in state SCHEDULED, with their Input Information Sequence |
| N-ACTION 1 | IN PROGRESS with a Transaction UID of our own, then COMPLETED or CANCELED |
| N-SET | Performed Procedure Sequence with station, times and Output Information Sequence; why it was cancelled |

A study that is not in the node is fetched by C-GET from the remote whose AE title the workitem names, if the settings
know it, and else from the remote of the worklist. The node itself does not create, subscribe to or serve workitems.
"""

_WORKLIST = """
## 10. Worklist Service (UPS-RS) as origin server

`wetread serve` manages and performs workitems at `/dicom-web` (PS3.18 chapter 11; IHE AI Workflow, RAD-80 to 85, 88).

| transaction | address | success | failure |
|---|---|---|---|
| Create | POST /workitems?UID | 201 with Location; a Warning says that something was added | 400, 409 |
| Retrieve | GET /workitems/UID | 200 | 404, 406, 410 |
| Update | POST /workitems/UID, ?UID of the transaction when claimed | 200 | 400, 404, 409, 410 |
| Change State | PUT /workitems/UID/state | 200; a Warning says that it is in that state already | 400, 404, 409, 410 |
| Request Cancellation | POST /workitems/UID/cancelrequest | 202 | 404, 409, 410 |
| Search | GET /workitems | 200, 204, 206 with the number of further results | 400 |
| Retrieve (WADO-RS) | GET /studies/UID/series/UID, and /instances/UID | 200 | 404 |
| Subscribe, Unsubscribe, Suspend, Open Notification Connection | | not offered | 501 |

Besides: 401, 403, 413 (a body above 1 MiB, or without its length), 415, 429, 503. A transaction UID that is missing or
wrong is 400, as is an update in a final state; what the state does not allow is 409. Errors carry the Warning that
PS3.18 prescribes, and in their JSON the DIMSE status (C300 to C312).

| what | value |
|---|---|
| media types | application/dicom+json, also as application/json; no XML, no bulk data |
| authentication | `Authorization: Bearer TOKEN`; scope `read` to look, `write` for the rest |
| character set | ISO_IR 192 |
| matching | {matching} |
| matching types | single value, list of UIDs or states, wild card (in either case), range of times, universal |
| offset and limit | 100 at once, at most 200; ordered by creation |
| fuzzy matching | not supported, which a Warning says |
| added at creation | attributes of type 2 that were left out (empty); Worklist Label |
| added at each change | Scheduled Procedure Step Modification DateTime |
| kept | until their study is deleted; from then on 410 |

What becomes of a workitem:

- It asks for the read of one study: that of Study Instance UID (0020,000D), or the only one of its Input Information
  Sequence; and of that patient, where Patient ID is given. Worklist Label is the worklist of the service.
- The service performs it if Scheduled Station Name Code Sequence is empty or has the code value WETREAD, as soon as
  the study is in that worklist, the start has come, and Input Readiness State is not INCOMPLETE. Others may claim it
  before.
- Scheduled Processing Parameters Sequence may name the reader and its operating point: items of value type TEXT whose
  concept is (reader, 99WETREAD) or (operating_point, 99WETREAD). Others are refused.
- It is COMPLETED when no read is open and at least one was made; Output Information Sequence has a report
  (Comprehensive 3D SR) for each, with the address of its series in WADO-RS Retrieval Sequence; Comments on the
  Performed Procedure Step says how many images were not read. It is CANCELED when none was, with the reason.
- A cancellation that its requester or an admin asks for is carried out unless somebody else performs it, who cannot be
  told (C312). A performer that cancels without a reason gets (110513, DCM, Discontinued for unspecified reason).
"""
MATCHING = (
    *("SOPInstanceUID", "ProcedureStepState", "StudyInstanceUID", "InputInformationSequence.StudyInstanceUID"),
    *("PatientID", "PatientName", "ProcedureStepLabel", "WorklistLabel", "ScheduledProcedureStepPriority"),
    *("InputReadinessState", "ScheduledProcedureStepStartDateTime"),
)
"""What the service matches in workitems; a test of it compares."""


def conformance_statement() -> str:
    """The whole statement as Markdown."""
    limits = Limits()
    policies = _POLICIES.format(
        pdu=f"{limits.pdu_bytes:,}",
        object=limits.object_bytes >> 30,
        associations=limits.associations,
        address=limits.per_address,
        handshake=limits.handshake_s,
        pdu_s=limits.pdu_s,
        idle=limits.idle_s,
        objects=MAX_OBJECTS,
    )
    worklist = _WORKLIST.replace("{matching}", ", ".join(MATCHING))
    parts = [_HEAD, policies, _classes(), _syntaxes(), _RESULTS, _codes(), _queries(), worklist]
    return "".join(parts)


def _classes() -> str:
    head = "\n## 5. Storage SOP classes\n\n| name | UID | read |\n|---|---|---|\n"
    rows = [f"| {name} | {uid} | {'yes' if uid in READABLE else ''} |\n" for uid, name in sorted(STORAGE_NAMES.items())]
    return head + "".join(rows)


def _syntaxes() -> str:
    from pydicom.uid import UID

    rows = [f"| {UID(uid).name} | {uid} |\n" for uid in sorted(TRANSFER_SYNTAXES)]
    return "\n## 6. Transfer syntaxes\n\n| name | UID |\n|---|---|\n" + "".join(rows)


def _codes() -> str:
    rows = [f"| {label} | ({code}, SCT, {meaning}) |\n" for label, (code, meaning) in sorted(FINDING_CODES.items())]
    return "\n| label | code |\n|---|---|\n" + "".join(rows)


def _queries() -> str:
    keys = ", ".join(FIND_KEYS)
    return f"\n## 8. Query as SCU\n\nLevel STUDY. Asked for: {keys}. Any other keyword may be searched by.\n" + _WORK


if __name__ == "__main__":
    sys.stdout.write(conformance_statement())
