"""Killed workers and servers, a locked database, a full disk, half uploads: the short form of the benchmark."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.service_faults import (
    Site,
    Tally,
    disk_full,
    half_uploads,
    kill_servers,
    kill_workers,
    locked,
    open_site,
    share_work,
    tally,
)


def whole(found: Tally) -> bool:
    """Nothing lost, nothing twice, nothing given up, nobody has touched the audit log."""
    return (found.lost, found.twice, found.dead, found.chain_broken) == (0, 0, 0, False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("faults") / "service") as opened:
        opened.start_server()
        yield opened


def test_nothing_is_lost_or_read_twice_when_workers_are_killed(site: Site) -> None:
    kill_workers(site, 5)
    found = tally(site)
    assert whole(found), found
    assert found.acknowledged >= 30
    assert found.unnamed == 0


def test_nothing_that_was_acknowledged_is_lost_when_servers_are_killed(site: Site) -> None:
    before = len(site.acknowledged)
    kill_servers(site, 2)
    found = tally(site)
    assert whole(found), found
    assert found.acknowledged > before + 2


def test_half_uploads_leave_nothing(site: Site) -> None:
    before = tally(site)
    assert half_uploads(site, 8) == 0
    assert tally(site) == before


def test_an_upload_waits_for_a_locked_database(site: Site) -> None:
    seconds, status = locked(site, 1.5)
    assert status == 201
    assert seconds >= 1.5


def test_several_worker_processes_share_a_postgresql_and_one_is_killed(tmp_path: Path, postgres_url: str) -> None:
    with open_site(tmp_path / "service", postgres_url) as site:
        site.start_server()
        share_work(site, 2, 16)
        found = tally(site)
    assert whole(found), found
    assert found.acknowledged == 16


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB; mounting one is for root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    with contextlib.suppress(OSError):
        if os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            yield folder
            subprocess.run(["umount", str(folder)], check=True)
            return
    pytest.skip("no small disk: run as root where `mount -t tmpfs` is allowed")


def test_a_full_disk_is_told_and_survived(small_disk: Path) -> None:
    with open_site(small_disk / "service") as site:
        site.start_server()
        statuses, after = disk_full(site, 256 << 10)
        assert statuses <= {201, 503, 507}
        assert 507 in statuses
        assert after == 201  # without a restart
        found = tally(site)
        assert found.unnamed == 0  # what could not be named was removed again
        assert not found.chain_broken
        assert list((site.root / "quarantine").iterdir()) == []
        for sha256 in site.acknowledged.values():
            with contextlib.closing(site.open()) as service:
                assert not service.blobs.damaged(sha256)
