"""``wetread models import`` of a reader made elsewhere, and the other verbs on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import CliResult
from tests.models.foreign_support import Ramp, save_card, write_image
from tests.reading.support import write_films
from wetread.datasets.phantoms import DatasetPlan, make_dataset
from wetread.types import Read

Cli = Callable[..., CliResult]
PLAIN = {"mean": 0.0, "std": 1.0}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WETREAD_PATHS__READERS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A graph and beside it a card that reproduces what the graph gives."""
    seen = np.broadcast_to(write_image(tmp_path / "a.png"), (1, 3, 32, 32))
    top = {"classes": ["normal", "consolidation"], "licence": "CC0-1.0"}
    save_card(tmp_path, {"image": "a.png", "outputs": Ramp()(seen)[0]}, top=top, input=PLAIN)
    return Ramp().save(tmp_path / "net.onnx")


@pytest.fixture
def imported(cli: Cli, shelf: Path, graph: Path) -> str:
    assert cli("models", "import", graph, "--card", graph.parent / "card.toml").exit_code == 0
    return "elsewhere"


def test_import_says_how_closely_it_was_reproduced(cli: Cli, shelf: Path, graph: Path) -> None:
    result = cli("models", "import", graph, "--card", graph.parent / "card.toml", "--name", "other")
    assert result.exit_code == 0, result.stderr
    assert "Reference: logits of 1 image reproduced, largest difference " in result.stdout
    assert "Next: wetread read FILE --reader other" in result.stdout
    assert result.stderr == ""
    assert (shelf / "other" / "model.onnx").read_bytes() == graph.read_bytes()


def test_the_card_shows_where_it_came_from(cli: Cli, imported: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = cli("models", "show", imported).stdout
    for text in ("net.onnx (onnx, sha256 ", "logits of 1 image reproduced", "ONNX graph, 1 of them", "CC0-1.0"):
        assert text in shown
    assert "unknown: unknown images of unknown patients, unknown" in shown
    card = json.loads(cli("models", "show", imported, "--json").stdout)
    assert card["foreign"]["reference"]["images"] == 1
    monkeypatch.setenv("COLUMNS", "120")
    row = next(line for line in cli("models", "list").stdout.splitlines() if line.startswith(imported))
    assert row.split() == [imported, "unknown", "binary", "consolidation", "unknown", "not", "audited"]


def test_a_pair_in_a_file_of_its_own(cli: Cli, shelf: Path, graph: Path) -> None:
    images = np.random.default_rng(3).uniform(0, 1, (2, 32, 32)).astype(np.float32)
    outputs = Ramp()(np.broadcast_to(images[:, None], (2, 3, 32, 32)))
    np.savez(graph.parent / "pairs.npz", images=images, outputs=outputs)
    card = save_card(graph.parent, top={"classes": ["normal", "consolidation"]}, input=PLAIN)
    result = cli("models", "import", graph, "--card", card, "--reference", graph.parent / "pairs.npz")
    assert result.exit_code == 0, result.stderr
    assert "logits of 2 images reproduced" in result.stdout


def test_without_reference_is_a_warning_and_on_the_card(cli: Cli, shelf: Path, graph: Path) -> None:
    card = save_card(graph.parent, input=PLAIN)
    refused = cli("models", "import", graph, "--card", card)
    assert refused.exit_code == 3
    assert "expected a reference pair" in refused.stderr
    result = cli("models", "import", graph, "--card", card, "--without-reference")
    assert result.exit_code == 0
    assert "without a reference pair" in " ".join(result.stderr.split())
    shown = cli("models", "show", "elsewhere").stdout
    assert "none was given" in shown
    assert "Imported without a reference pair" in shown


def test_a_wrong_card_leaves_nothing(cli: Cli, shelf: Path, graph: Path) -> None:
    card = save_card(graph.parent, {"image": "a.png", "outputs": [9.0]}, input=PLAIN)
    result = cli("models", "import", graph, "--card", card)
    assert result.exit_code == 3
    assert "expected outputs [9] for a.png, got [" in " ".join(result.stderr.split())
    assert not shelf.exists()


def test_flags_that_do_not_belong_together(cli: Cli, shelf: Path, graph: Path) -> None:
    result = cli("models", "import", graph)
    assert result.exit_code == 2
    assert "expected a card for net.onnx, got none" in result.stderr
    result = cli("models", "import", graph.parent / "bundle.zip", "--card", graph.parent / "card.toml")
    assert result.exit_code == 2
    assert "for a reader made elsewhere, got a bundle, bundle.zip; drop them" in " ".join(result.stderr.split())


def test_a_read_ends_well_and_says_why_there_is_no_heat_map(cli: Cli, imported: str, tmp_path: Path) -> None:
    films = write_films(tmp_path / "films", 2)
    result = cli("read", *films, "--reader", imported, "--out", tmp_path / "reads")
    assert result.exit_code == 0, result.stderr
    for line in (tmp_path / "reads" / "reads.jsonl").read_text(encoding="utf-8").splitlines():
        read = Read.model_validate_json(line)
        assert read.gate.passed
        assert read.gate.distance is None
        (label,) = read.labels
        assert label.probability is not None
        assert label.evidence is not None
        assert label.evidence.heatmap is None
        assert "got an ONNX graph, which gives scores alone; use --method occlusion, rise or lime" in (
            label.evidence.status
        )


def test_explain_by_gradients_is_refused_and_by_occlusion_is_not(cli: Cli, imported: str, tmp_path: Path) -> None:
    film = write_films(tmp_path / "films", 1)[0]
    result = cli("explain", film, "--reader", imported, "--out", tmp_path / "maps")
    assert result.exit_code == 1
    assert "expected a network with gradients for gradcam" in result.stderr
    result = cli("explain", film, "--reader", imported, "--method", "occlusion", "--out", tmp_path / "maps")
    assert result.exit_code == 0, result.stderr


def test_evaluate(cli: Cli, imported: str, tmp_path: Path) -> None:
    films = make_dataset(tmp_path / "films", DatasetPlan(40, size_px=64, sources=("northgate",), format="png"))
    result = cli("evaluate", imported, "--data", films.root, "--json", "--resamples", 200)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["facts"]["images"] > 0
