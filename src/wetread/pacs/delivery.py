"""Sending what the outbox holds: each job by the way that its target and its kind ask for.

Decided here: what fails is a reason for its job and never an exception, so that one target cannot keep the results
of another back.
"""

from __future__ import annotations

from pathlib import Path

from wetread.errors import PeerUnreachable, UsageError
from wetread.pacs.outbox import Job
from wetread.settings import NodeRemote, NodeSettings

__all__ = ["Delivery"]


class Delivery:
    """Sends jobs to the remotes of the settings."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings

    def send(self, target: str, jobs: list[tuple[Job, Path]]) -> dict[int, str]:
        """Send the files of ``jobs``; return job id -> error for those that failed."""
        remote = self._settings.remotes.get(target)
        if remote is None:
            return {job.id: "no such remote in the settings" for job, _ in jobs}
        try:
            return self._send(remote, jobs)
        except Exception as error:  # its text may quote a header, and headers name patients
            return {job.id: f"unexpected {type(error).__name__}" for job, _ in jobs}

    def _send(self, remote: NodeRemote, jobs: list[tuple[Job, Path]]) -> dict[int, str]:
        failed: dict[int, str] = {}
        objects = [(job, path) for job, path in jobs if job.kind == "store"]
        try:
            refused = self._send_objects(remote, [path for _, path in objects])
            failed |= {job.id: refused[path] for job, path in objects if path in refused}
        except (PeerUnreachable, UsageError) as error:
            failed |= {job.id: str(error) for job, _ in objects}
        for job, path in jobs:
            if job.kind != "store" and (why := self._send_other(remote, job, path)):
                failed[job.id] = why
        return failed

    def _send_objects(self, remote: NodeRemote, files: list[Path]) -> dict[Path, str]:
        from wetread.pacs import client, web

        if not files:
            return {}
        if remote.web:
            return web.send_files(remote.web, files, proof=web.authorization(remote.authorization))
        return client.send_files(remote, self._settings.title, files)

    def _send_other(self, remote: NodeRemote, job: Job, path: Path) -> str:
        from wetread.pacs import client, web

        data = path.read_bytes()
        try:
            if job.kind == "fhir":
                return web.post_fhir(remote.fhir, data, proof=web.authorization(remote.authorization))
            return client.report_commitment(remote, self._settings.title, data[0], data[1:])
        except (PeerUnreachable, UsageError) as error:
            return str(error)
