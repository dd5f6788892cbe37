"""The service on a real PostgreSQL server: the tests of the default database again, and what only it can show."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError

from tests.service import test_api, test_jobs, test_workitem_search, test_workitem_states, test_workitems
from tests.service.workitem_support import WORKITEM, Requester, study
from wetread.errors import PeerUnreachable
from wetread.service import audit_log
from wetread.service.accounts import Principal
from wetread.service.audit_log import Actor
from wetread.service.backup import back_up, restore
from wetread.service.blobs import BlobStore
from wetread.service.claims import begin_due
from wetread.service.context import Service, open_service
from wetread.service.database import Database, migrate, open_database, revision
from wetread.service.ingest import Destination, ingest
from wetread.service.jobs import Found, Lease, claim, finish
from wetread.service.tables import Base, Blob, Job, Result, Study
from wetread.service.worker import Worker
from wetread.settings import Settings

# The same tests, with the fixtures of this module: an installation on PostgreSQL.
client = test_api.client
films = test_jobs.films
test_upload = test_api.test_an_upload_becomes_a_study_once
test_worklist = test_api.test_the_worklist_is_ordered_filtered_and_paged
test_reports = test_api.test_a_read_study_can_be_looked_at_judged_and_reported
test_deletion = test_api.test_a_deleted_study_takes_its_files_along_but_no_others
test_jobs_are_asked_for_once = test_api.test_jobs_are_asked_for_once_followed_and_cancelled
test_passwords = test_api.test_logging_in_by_password_locks_out_who_guesses
test_one_time_address = test_api.test_a_one_time_address_works_once
test_canary = test_api.test_a_patient_is_named_nowhere_but_in_the_answers_about_the_study
test_nasty_questions = test_api.test_nasty_questions_get_an_answer_or_one_clear_error
test_any_text = test_api.test_any_text_is_kept_or_refused
test_health = test_api.test_health_and_readiness
test_study_is_read = test_jobs.test_a_study_is_read_and_put_in_order
test_silent_worker = test_jobs.test_a_silent_worker_is_replaced_and_cannot_write_any_more
test_dead_letters = test_jobs.test_a_job_that_was_tried_is_tried_alone_and_then_laid_to_rest
test_back_off = test_jobs.test_a_failure_that_may_pass_waits_longer_each_time
requester = test_workitems.requester
listed = test_workitem_search.listed
test_workitem_path = test_workitems.test_a_study_that_comes_later_is_read_and_told
test_workitem_begun = (
    test_workitems.test_a_study_that_is_here_is_begun_at_once_and_one_that_is_read_is_completed_at_once
)
test_workitem_dead = test_workitems.test_a_worker_that_dies_leaves_the_workitem_to_the_next
test_workitem_claims = test_workitems.test_of_two_that_claim_at_once_one_wins
test_workitem_cancelled = test_workitems.test_a_cancellation_stops_reads_that_nobody_else_waits_for
test_workitem_deleted = test_workitems.test_a_workitem_goes_with_its_study
test_workitem_matching = test_workitem_search.test_a_search_matches_as_the_standard_says
test_workitem_not_matching = test_workitem_search.test_a_search_that_cannot_be_made_is_refused
test_workitem_canary = test_workitems.test_a_patient_of_a_workitem_is_named_in_no_log_address_metric_or_error
test_workitem_states_all = test_workitem_states.test_who_knows_the_transaction_uid
test_workitem_report = test_workitems.test_a_report_is_one_file_for_ever
test_cancelled = test_jobs.test_a_waiting_job_is_cancelled_at_once_and_a_running_one_before_it_writes


@pytest.fixture
def installation(installation: Settings, postgres_url: str) -> Settings:
    chosen = installation.service.model_copy(update={"database_url": postgres_url})
    return installation.model_copy(update={"service": chosen})


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    opened = open_database(postgres_url)
    yield opened
    opened.close()


def test_the_migrations_make_the_tables_that_the_code_describes(database: Database) -> None:
    migrate(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_processes_that_start_together_migrate_once(postgres_url: str) -> None:
    opened = [open_database(postgres_url) for _ in range(4)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda one=one: found.append(migrate(one))) for one in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [revision(opened[0])] * 4
    for one in opened:
        one.close()


def test_the_audit_log_only_grows_and_its_chain_holds_under_many_writers(database: Database) -> None:
    migrate(database)

    def add(number: int) -> None:
        for _ in range(5):
            with database.write() as session:
                audit_log.append(session, Actor("ada"), "view", str(number))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for statement in ("UPDATE audit_log SET actor = 'eve'", "DELETE FROM audit_log"):
        with pytest.raises(DatabaseError, match="only grows"), database.engine.begin() as connection:
            connection.execute(text(statement))
    with database.read() as session:
        check = audit_log.verify(session)
    assert (check.entries, check.broken) == (40, None)


def test_uploads_of_the_same_images_in_other_orders_do_not_lock_each_other_out(
    service: Service, someone: Principal
) -> None:
    """Six studies, each of five of the same six images."""
    data = [test_api.film(seed) for seed in range(6)]
    problems: list[Exception] = []

    def send(order: list[bytes]) -> None:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(service.blobs.quarantine(1 << 20)) for _ in order]
            for file, content in zip(files, order, strict=True):
                file.write(content)
            try:
                ingest(service, someone, files, Destination(), "r")
            except Exception as error:
                problems.append(error)

    for _ in range(3):
        orders = [(data[turn:] + data[:turn])[:5] for turn in range(6)]
        threads = [threading.Thread(target=send, args=(order,)) for order in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    with service.database.read() as session:
        assert len(session.scalars(select(Study)).all()) == 6
        assert len(session.scalars(select(Blob)).all()) == 6
        assert len(session.scalars(select(Job)).all()) == 30


def test_of_two_windows_that_save_at_once_one_is_told(service: Service) -> None:
    client = test_api.as_role(service, "annotator")
    study = test_api.upload(client, test_api.film(1)).json()["studies"][0]["id"]
    test_api.do_jobs(service)
    for _ in range(5):
        revision = client.get(f"/api/v1/studies/{study}/draft").json()["revision"]
        body = {"text": "x", "revision": revision}
        found: list[int] = []
        threads = [
            threading.Thread(
                target=lambda body=body, found=found: found.append(
                    client.put(f"/api/v1/studies/{study}/draft", json=body).status_code
                )
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [200, 409, 409, 409]


def test_workitems_that_are_created_and_begun_at_once_are_each_begun_once(
    service: Service, installation: Settings, requester: Requester
) -> None:
    """Uploads, requests and sweeps of several processes meet; none locks another out."""
    films = [study(number) for number in (1, 2, 3)]
    problems: list[object] = []

    def ask(number: int) -> None:
        made = requester.create(films[number % 3][1], f"{WORKITEM}.{number}")
        problems.extend([made.text] if made.status_code != 201 else [])

    def send(number: int) -> None:
        made = test_api.upload(requester.client, films[number][0])
        problems.extend([made.text] if made.status_code != 201 else [])

    def sweep(_: int) -> None:
        opened = open_service(installation)
        begin_due(opened)
        opened.close()

    acts = [(ask, number) for number in range(9)] + [(send, number) for number in range(3)] + [(sweep, 0), (sweep, 1)]
    threads = [threading.Thread(target=act, args=(number,)) for act, number in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    begin_due(service)
    assert len(requester.search({"ProcedureStepState": "IN PROGRESS"})) == 9
    assert len(test_api.do_jobs(service)) == 3
    assert len(requester.search({"ProcedureStepState": "COMPLETED"})) == 9
    with service.database.read() as session:
        assert audit_log.verify(session).broken is None


def test_several_workers_share_the_jobs_and_nothing_is_done_twice(
    service: Service, installation: Settings, someone: Principal
) -> None:
    with service.blobs.quarantine(1 << 20) as one:
        one.write(test_api.packed({f"{seed}.png": test_api.film(seed) for seed in range(40)}))
        ingest(service, someone, [one], Destination(), "r")
    taken: list[str] = []

    def run(owner: str) -> None:
        opened = open_service(installation)
        lease = Lease(owner, 60.0, 3)
        while True:
            with opened.database.write() as session:
                batch = [job.id for job in claim(session, lease, 3)]
            if not batch:
                break
            for job in batch:
                with opened.database.write() as session:
                    assert finish(session, lease, job, Found({"by": owner})) is not None
                taken.append(job)
        opened.close()

    threads = [threading.Thread(target=run, args=(f"worker {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 40
    with service.database.read() as session:
        assert len(session.scalars(select(Result)).all()) == 40
        assert session.scalars(select(Study.status)).all() == ["read"]


def test_a_backup_of_sqlite_is_restored_into_postgresql(
    installation: Settings, database: Database, tmp_path: Path
) -> None:
    chosen = installation.service.model_copy(update={"database_url": "", "root": tmp_path / "old"})
    old = open_service(installation.model_copy(update={"service": chosen}))
    found = test_api.as_role(old, "admin")
    study = test_api.upload(found, test_api.film(1)).json()["studies"][0]["id"]
    test_api.do_jobs(old)
    made = back_up(old.database, old.blobs, tmp_path / "backup.tar")
    old.close()
    migrate(database)
    store = BlobStore(tmp_path / "new")
    taken = restore(database, store, tmp_path / "backup.tar")
    assert (taken.rows, taken.files) == (made.rows, made.files)
    with database.read() as session:
        assert session.get_one(Study, study).status == "read"
        assert audit_log.verify(session, made.head).broken is None


def test_a_database_that_is_away_is_told_without_its_password() -> None:
    away = open_database("postgresql+psycopg://wetread:SECRET@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(PeerUnreachable, match="a database that answers") as told:
        migrate(away)
    assert "SECRET" not in str(told.value)
    away.close()


def test_a_worker_reads_on_after_the_connection_was_cut(service: Service, someone: Principal) -> None:
    with service.database.read() as session:
        session.execute(select(1))
    with service.database.engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    assert Worker(service).drain() == 0
