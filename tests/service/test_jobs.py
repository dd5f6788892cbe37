"""Uploads become jobs, jobs become results: once each, whatever happens to the workers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select, update

from wetread.service import audit_log, jobs
from wetread.service.accounts import Principal
from wetread.service.context import Service
from wetread.service.ingest import Destination, Ingested, ingest
from wetread.service.jobs import Failure, Found, Lease
from wetread.service.problems import Problem
from wetread.service.tables import Job, Picture, Result, Study
from wetread.service.worker import Worker
from wetread.types import Read

ONE, TWO = Lease("one", 30.0, 3), Lease("two", 30.0, 3)


def take_in(service: Service, who: Principal, films: Sequence[Path]) -> Ingested:
    with service.blobs.quarantine(1 << 24) as first, service.blobs.quarantine(1 << 24) as second:
        files = [first, second][: len(films)]
        for file, film in zip(files, films, strict=True):
            file.write(film.read_bytes())
        return ingest(service, who, files, Destination(), "r1")


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    """Two films of two patients: DICOM, and the picture of one."""
    from wetread.datasets.phantoms import render, sample_spec, write_dicom, write_png

    made = [render(sample_spec(np.random.default_rng(seed), size_px=128)) for seed in (1, 2)]
    return [write_dicom(made[0], tmp_path / "film.dcm"), write_png(made[1], tmp_path / "film.png")]


def _claim(service: Service, lease: Lease, limit: int = 8) -> list[Job]:
    with service.database.write() as session:
        return jobs.claim(session, lease, limit)


def _let_leases_end(service: Service) -> None:
    with service.database.write() as session:
        session.execute(update(Job).values(lease_until=time.time() - 1))


def _job(service: Service, job_id: str) -> Job:
    with service.database.read() as session:
        return session.get_one(Job, job_id)


def test_a_study_is_read_and_put_in_order(service: Service, someone: Principal, films: list[Path]) -> None:
    got = take_in(service, someone, films)
    assert [(study.added, study.known) for study in got.studies] == [(1, 0), (1, 0)]  # a DICOM study, a loose picture
    assert Worker(service).drain() == 2
    with service.database.read() as session:
        for study in session.scalars(select(Study)):
            assert (study.status, study.images) == ("read", 1)
        results = session.scalars(select(Result)).all()
        reads = [Read.model_validate(result.record) for result in results]
        assert all(read.gate.passed or read.gate.reasons for read in reads)
        assert session.scalar(select(func.count()).select_from(Picture).where(Picture.name == "film")) == 2
        assert audit_log.verify(session).broken is None


def test_the_same_upload_again_adds_nothing(service: Service, someone: Principal, films: list[Path]) -> None:
    first = take_in(service, someone, films)
    Worker(service).drain()
    again = take_in(service, someone, films)
    assert [study.id for study in again.studies] == [study.id for study in first.studies]
    assert [(study.added, study.known) for study in again.studies] == [(0, 1), (0, 1)]
    assert again.jobs == first.jobs
    assert Worker(service).drain() == 0


def test_a_silent_worker_is_replaced_and_cannot_write_any_more(
    service: Service, someone: Principal, films: list[Path]
) -> None:
    take_in(service, someone, films[:1])
    (job,) = _claim(service, ONE)
    assert _claim(service, TWO) == []
    _let_leases_end(service)
    assert [taken.id for taken in _claim(service, TWO)] == [job.id]
    with service.database.write() as session:
        assert jobs.finish(session, ONE, job.id, Found({"by": "one"})) is None
        assert jobs.finish(session, TWO, job.id, Found({"by": "two"})) is not None
        assert jobs.finish(session, TWO, job.id, Found({"by": "two"})) is None
    with service.database.read() as session:
        assert [result.record for result in session.scalars(select(Result))] == [{"by": "two"}]


def test_a_job_that_was_tried_is_tried_alone_and_then_laid_to_rest(
    service: Service, someone: Principal, films: list[Path]
) -> None:
    take_in(service, someone, films)
    assert len(_claim(service, ONE)) == 2
    for _ in range(2):
        _let_leases_end(service)
        assert len(_claim(service, ONE)) == 1
        _let_leases_end(service)
        assert len(_claim(service, ONE)) == 1
    _let_leases_end(service)
    assert _claim(service, ONE) == []
    with service.database.read() as session:
        ended = session.scalars(select(Job)).all()
    assert [(job.state, job.code) for job in ended] == [("dead", "worker_lost")] * 2
    assert ended[0].message == "The worker was lost 3 times at this job."


def test_a_failure_that_may_pass_waits_longer_each_time(
    service: Service, someone: Principal, films: list[Path]
) -> None:
    take_in(service, someone, films[:1])
    waits = []
    for _ in range(3):
        (job,) = _claim(service, ONE)
        with service.database.write() as session:
            jobs.fail(session, ONE, job.id, Failure("unexpected", "An unexpected OSError.", again=True))
        waits.append(round(_job(service, job.id).run_after - time.time()))
        assert _claim(service, ONE) == []
        with service.database.write() as session:
            session.execute(update(Job).values(run_after=0.0))
    assert waits[:2] == [2, 10]
    assert _job(service, job.id).state == "dead"
    with service.database.write() as session:
        jobs.requeue(session.get_one(Job, job.id))
    assert len(_claim(service, ONE)) == 1


def test_the_next_due_time_is_that_of_waiting_jobs_and_of_leases(
    service: Service, someone: Principal, films: list[Path]
) -> None:
    def due() -> float | None:
        with service.database.read() as session:
            return jobs.next_due(session)

    assert due() is None
    take_in(service, someone, films)
    assert (due() or 0) <= time.time()
    (first,) = _claim(service, ONE, limit=1)
    (second,) = _claim(service, TWO, limit=1)
    assert (due() or 0) == pytest.approx(time.time() + 30, abs=5)  # the leases
    with service.database.write() as session:
        jobs.fail(session, ONE, first.id, Failure("unexpected", "x", again=True))
    assert (due() or 0) == pytest.approx(time.time() + 2, abs=1)  # the back-off
    with service.database.write() as session:
        jobs.fail(session, TWO, second.id, Failure("image_refused", "x"))
        jobs.cancel(session, session.get_one(Job, first.id))
    assert due() is None


def test_the_bell_rings_by_itself_when_a_lease_has_ended(
    service: Service, someone: Principal, films: list[Path]
) -> None:
    """Nobody else rings for the job of a worker that fell silent."""
    take_in(service, someone, films[:1])
    _claim(service, Lease("silent", 1.0, 3))
    worker, queue = Worker(service), service.bell._huey
    assert worker.drain() == 0
    queue.flush()
    worker.set_alarm()
    assert queue.pending_count() == 0
    end = time.monotonic() + 30
    while queue.pending_count() == 0 and time.monotonic() < end:
        time.sleep(0.05)
    assert queue.pending_count() == 1
    assert len(_claim(service, TWO)) == 1
    assert worker.drain() == 0


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_before_it_writes(
    service: Service, someone: Principal, films: list[Path]
) -> None:
    take_in(service, someone, films)
    (running,) = _claim(service, ONE, limit=1)
    with service.database.write() as session:
        for job in session.scalars(select(Job)):
            jobs.cancel(session, job)
        assert jobs.renew(session, ONE, [running.id]) == {running.id}
        assert jobs.finish(session, ONE, running.id, Found({})) is None
    with service.database.read() as session:
        assert {job.state for job in session.scalars(select(Job))} == {"cancelled"}
        assert session.scalars(select(Result)).all() == []
    with service.database.write() as session, pytest.raises(Problem, match="ended already: cancelled"):
        jobs.cancel(session, session.get_one(Job, running.id))


def test_an_image_that_cannot_be_decoded_fails_for_good(
    service: Service, someone: Principal, films: list[Path], tmp_path: Path
) -> None:
    data = films[0].read_bytes()
    (tmp_path / "cut.dcm").write_bytes(data[: len(data) // 2])
    got = take_in(service, someone, [tmp_path / "cut.dcm"])
    Worker(service).drain()
    job = _job(service, got.jobs[0])
    assert (job.state, job.code) == ("failed", "image_refused")
    with service.database.read() as session:
        assert session.scalars(select(Study.status)).one() == "failed"


def test_a_positive_finding_stands_before_a_negative_one() -> None:
    from wetread.service.urgency import urgency_of
    from wetread.types import LabelReading

    def urgency(probability: float | None, decision: str, verdict: str = "PASS on x") -> float:
        return urgency_of(
            LabelReading.model_validate({"label": "a", "probability": probability, "decision": decision}), verdict
        )

    assert urgency(0.2, "positive") == 0.6
    assert urgency(0.9, "negative") == 0.45
    assert urgency(None, "withheld") == 0.0
    assert urgency(1.0, "positive", "FAIL T4 on x") == 0.5
    assert urgency_of(None, "") == 0.0
