"""``wetread doctor`` on a well installation, and on ones that are broken on purpose."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import CliResult
from tests.models.support import small_reader
from wetread.cli import doctor
from wetread.cli.doctor import Check, examine
from wetread.imaging.codecs import compressed_syntaxes
from wetread.models.bundle import save_reader
from wetread.settings import Settings, load_settings

Cli = Callable[..., CliResult]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"paths.readers": tmp_path / "readers", "paths.runs": tmp_path / "runs"})


def _found(settings: Settings) -> dict[str, Check]:
    return {check.what: check for check in examine(settings)}


def _save_small(settings: Settings) -> Path:
    reader = small_reader()
    folder = settings.paths.readers / "small"
    save_reader(folder, reader.card, reader.networks)
    return folder


def test_this_installation_is_well(cli: Cli) -> None:
    result = cli("doctor")
    assert result.exit_code == 0
    assert "all is well" in result.stdout
    assert "broken" not in result.stdout


def test_json_says_the_same(cli: Cli) -> None:
    found = json.loads(cli("doctor", "--json").stdout)
    assert found["well"] is True
    names = [check["what"] for check in found["checks"]]
    assert len(names) == len(set(names))
    assert {"wetread", "python", "torch and torchvision", "threads", "allocator", "paths.runs"} <= set(names)


def test_every_compressed_syntax_is_tried(settings: Settings) -> None:
    tried = [what for what in _found(settings) if what.startswith("decoder ")]
    assert len(tried) == len(compressed_syntaxes())


def test_a_missing_library_is_broken_with_its_cure(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from wetread import provenance

    monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-library"))
    check = _found(settings)["no-such-library"]
    assert (check.status, check.found) == ("broken", "not installed")
    assert "make setup" in check.cure


def test_a_torchvision_without_operators_is_broken(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.ops

    def missing(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nlong story")

    monkeypatch.setattr(torchvision.ops, "nms", missing)
    check = _found(settings)["torch and torchvision"]
    assert check.status == "broken"
    assert check.found == "RuntimeError: operator torchvision::nms does not exist"
    assert "make clean setup" in check.cure


def test_a_decoder_that_changes_pixels_is_broken(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import imagecodecs

    real = imagecodecs.jpegls_decode

    def shifted(data: bytes) -> Any:
        return np.asarray(real(data)) + 1

    monkeypatch.setattr(imagecodecs, "jpegls_decode", shifted)
    found = _found(settings)
    assert found["decoder 1.2.4.80"].status == "broken"
    assert found["decoder 1.2.4.80"].found.endswith("off by 1 grey levels")
    assert found["decoder 1.2.4.90"].status == "ok"


def test_a_decoder_that_does_not_load_is_broken(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import imagecodecs

    monkeypatch.setattr(imagecodecs, "htj2k_decode", None)
    assert _found(settings)["decoder 1.2.4.201"].status == "broken"


def test_too_many_threads_is_a_warning(settings: Settings) -> None:
    many = load_settings({"runtime.threads": 1000, "paths.readers": settings.paths.readers})
    check = _found(many)["threads"]
    assert check.status == "warn"
    assert "runtime.threads" in check.cure


def test_no_glibc_is_a_warning(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from wetread import runtime

    monkeypatch.setattr(runtime, "keep_freed_memory", lambda: False)
    assert _found(settings)["allocator"].status == "warn"


def test_little_disk_is_a_warning(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1 << 30)
    monkeypatch.setattr("wetread.cli.doctor.shutil.disk_usage", lambda _: usage)
    check = _found(settings)["paths.runs"]
    assert check.status == "warn"
    assert "1.0 GiB free" in check.found


def test_a_folder_that_cannot_be_written_is_broken(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wetread.cli.doctor.os.access", lambda *_: False)
    check = _found(settings)["paths.runs"]
    assert check.status == "broken"
    assert "paths.runs" in check.cure


def test_a_file_where_a_folder_should_be_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = _found(load_settings({"paths.runs": tmp_path / "file" / "runs"}))["paths.runs"]
    assert check.status == "broken"


def test_readers_are_verified(settings: Settings) -> None:
    folder = _save_small(settings)
    assert _found(settings)["reader small"].status == "ok"
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    check = _found(settings)["reader small"]
    assert (check.status, check.found) == ("broken", "model.safetensors is not what the card says")


def test_a_damaged_card_does_not_hide_the_other_readers(settings: Settings) -> None:
    folder = _save_small(settings)
    (folder / "card.json").write_text("{}")
    shutil.copytree(folder, settings.paths.readers / "other")
    _save_small(settings)
    found = _found(settings)
    assert found["reader other"].status == "broken"
    assert found["reader small"].status == "ok"


def test_a_check_that_fails_is_a_finding_not_a_crash(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from wetread import provenance

    def fail() -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(provenance, "machine_facts", fail)
    found = _found(settings)
    assert found["machine"].status == "broken"
    assert found["machine"].found == "OSError: no such thing"
    assert "paths.runs" in found


def test_something_broken_is_exit_code_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Check(what="x", status="broken", found="y", cure="mend it")
    monkeypatch.setattr(doctor, "examine", lambda _: iter([broken]))
    result = cli("doctor")
    assert result.exit_code == 1
    assert "do: mend it" in result.stdout
    assert json.loads(cli("doctor", "--json").stdout)["well"] is False
