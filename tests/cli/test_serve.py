"""The verbs of the service: what they refuse, and what they print."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CliResult
from wetread.errors import UsageError
from wetread.service.server import Address, check_address, login_address

Cli = Callable[..., CliResult]


def test_an_address_that_others_reach_needs_tls_or_a_word(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        check_address(Address(host), insecure_bind=False)
    for host in ("0.0.0.0", "192.0.2.1", "reading-room.example", "::"):
        with pytest.raises(UsageError, match="expected TLS for an address that others reach"):
            check_address(Address(host), insecure_bind=False)
        check_address(Address(host), insecure_bind=True)
    pem = tmp_path / "x.pem"
    with pytest.raises(UsageError, match="together"):
        check_address(Address("0.0.0.0", certificate=pem), insecure_bind=False)
    with pytest.raises(UsageError, match="a PEM file"):
        check_address(Address("0.0.0.0", certificate=pem, key=pem), insecure_bind=False)


def test_serve_refuses_an_open_bind_before_anything_is_made(cli: Cli, tmp_path: Path) -> None:
    result = cli("serve", "--host", "0.0.0.0", "--root", tmp_path / "service")
    assert result.exit_code == 2
    assert "--insecure-bind" in result.stderr
    assert not (tmp_path / "service").exists()


def test_the_printed_address_is_of_this_machine() -> None:
    assert Address("0.0.0.0", 9000).url == "http://localhost:9000"
    assert Address("::1", 9000).url == "http://[::1]:9000"
    assert Address("127.0.0.1", 443, Path("c"), Path("k")).url == "https://127.0.0.1:443"


def test_the_database_is_made_backed_up_restored_and_verified(cli: Cli, tmp_path: Path) -> None:
    from wetread.service.context import open_service
    from wetread.settings import load_settings

    root, copy, tar = tmp_path / "one", tmp_path / "two", tmp_path / "backup.tar"
    assert cli("db", "migrate", "--root", root).stdout.strip() == "revision 0002"
    service = open_service(load_settings({"service.root": root}))
    assert login_address(service, Address()).startswith("http://127.0.0.1:8000/login?token=")
    stored = service.blobs.put(b"film")
    from wetread.service.tables import Blob

    with service.database.write() as session:
        session.add(Blob(sha256=stored.sha256, size=4, kind="PNG"))
    service.close()

    saved = json.loads(cli("db", "backup", tar, "--root", root, "--json").stdout)
    assert saved["files"] == 1
    back = cli("db", "restore", tar, "--root", copy, "--json")
    assert json.loads(back.stdout)["head"] == saved["head"]
    assert (copy / "blobs" / stored.sha256[:2] / stored.sha256[2:4] / stored.sha256).read_bytes() == b"film"
    again = cli("db", "restore", tar, "--root", copy)
    assert again.exit_code == 3
    assert "expected an empty installation" in again.stderr
    checked = json.loads(cli("db", "verify-log", "--root", copy, "--head", saved["head"], "--json").stdout)
    assert checked["broken"] is None
    assert checked["entries"] == 4  # user, one-time token, backup, restore

    with sqlite3.connect(copy / "wetread.db") as raw:
        raw.execute("DROP TRIGGER audit_log_update")
        raw.execute("UPDATE audit_log SET actor = 'eve' WHERE seq = 2")
    raw.close()
    found = cli("db", "verify-log", "--root", copy)
    assert found.exit_code == 1
    assert "line 2: the line was changed" in found.stderr
    (tmp_path / "no.tar").write_bytes(b"nothing")
    assert cli("db", "restore", tmp_path / "no.tar", "--root", tmp_path / "three").exit_code == 3
