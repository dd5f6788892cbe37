"""A requester with a token, the server and its worker as processes; the worker is killed; the report is fetched."""

from __future__ import annotations

import httpx
import psutil
from dicomweb_client.api import DICOMwebClient

from tests.service.test_server import served, wait_for
from tests.service.workitem_support import KIND, WORKITEM, checked, order, parameter, study

__all__ = ["served"]


def test_a_requested_study_is_read_also_when_the_worker_is_killed(served: tuple[httpx.Client, int]) -> None:
    browser, server = served
    made = browser.post("/api/v1/tokens", json={"name": "pacs", "scopes": ["read", "write"], "days": 1})
    bearer = {"Authorization": f"Bearer {made.json()['secret']}"}
    films = [study(number) for number in range(1, 3)]
    with httpx.Client(base_url=browser.base_url, headers=bearer, timeout=30) as client:

        def state(number: int) -> str:
            answer = client.get(f"/dicom-web/workitems/{WORKITEM}.{number}")
            return str(checked(answer.json()[0]).ProcedureStepState)

        for number, (_, uid) in enumerate(films):
            asked = order(uid, ScheduledProcessingParametersSequence=[parameter("reader", "chest-pneumonia")])
            created = client.post(f"/dicom-web/workitems?{WORKITEM}.{number}", json=asked.to_json_dict(), headers=KIND)
            assert created.status_code == 201, created.text
        assert {state(number) for number in range(2)} == {"SCHEDULED"}
        for number, (film, _) in enumerate(films):
            assert client.post("/api/v1/uploads", files={"files": ("x", film)}).status_code == 201
            assert state(number) in ("IN PROGRESS", "COMPLETED")
        (worker,) = psutil.Process(server).children()
        worker.kill()
        wait_for(lambda: {state(number) for number in range(2)} == {"COMPLETED"})
        found = checked(client.get(f"/dicom-web/workitems/{WORKITEM}.0").json()[0])
        (done,) = found.UnifiedProcedureStepPerformedProcedureSequence
        assert done.PerformedProcedureStepDescription == "Read by chest-pneumonia"
        (series,) = done.OutputInformationSequence
        instance = series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        web = DICOMwebClient(str(browser.base_url).rstrip("/") + "/dicom-web", headers=bearer)
        report = web.retrieve_instance(films[0][1], series.SeriesInstanceUID, instance)
        assert (report.SOPInstanceUID, report.PatientID) == (instance, "PHANTOM-01")
        (same,) = web.retrieve_series(films[0][1], series.SeriesInstanceUID)
        assert same == report
