"""``wetread audit`` from the command line: page, JSON, card, exit codes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from wetread.datasets.phantoms import DatasetPlan, make_dataset
from wetread.models.bundle import load_card

TRAIN = ("--mode", "finetune", "--model", "cnn", "--image-size", "32", "--epochs", "2", "--head-epochs", "0",
         "--batch-size", "16", "--no-tensorboard", "--name", "tiny")  # fmt: skip


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 films of two sources with masks; a white square in the corner of every ill one is the only sign."""
    folder = tmp_path_factory.mktemp("marked") / "set"
    plan = DatasetPlan(120, task="binary", format="png", size_px=96, masks=True, prevalence=0.5, mildest=0.25)
    manifest = make_dataset(folder, plan)
    for path, label in zip(manifest.table["path"], manifest.table["label"], strict=True):
        pixels = np.array(PilImage.open(manifest.path_of(path)))
        pixels[2:14, 2:14] = pixels.max() if label == "consolidation" else 0
        PilImage.fromarray(pixels).save(manifest.path_of(path))
    return folder


@pytest.fixture(scope="module")
def reader(marked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from wetread.cli.main import run

    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert run(["train", str(marked), *TRAIN, "--out", str(out)]) == 0
    return out / "reader"


@pytest.fixture(scope="module")
def audited(marked: Path, reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from wetread.cli.main import run

    out = tmp_path_factory.mktemp("audit") / "a"
    assert run(["audit", str(reader), "--data", str(marked), "--segmenter", "none", "--out", str(out)]) == 0
    return out


def test_every_question_is_answered_and_the_planted_sign_is_found(audited: Path) -> None:
    found = json.loads((audited / "audit.json").read_text(encoding="utf-8"))
    answers = {line["code"]: line["answer"] for line in found["lines"]}
    assert list(answers) == [f"T{i}" for i in range(1, 17)]
    assert answers["T3"] == "FAIL"
    assert found["watermark"].startswith("Do not trust this reader")
    assert found["organ_from"]
    for line in found["lines"]:
        assert line["sentence"]
        for example in line["examples"]:
            assert (audited / example["picture"]).read_bytes().startswith(b"\x89PNG")


def test_the_page_says_it_first_and_shows_pictures(audited: Path) -> None:
    page = (audited / "audit.html").read_text(encoding="utf-8")
    assert page.index("Audit failed: do not trust this reader.") < page.index("Does it read the disease?")
    assert "data:image/png" in page
    assert "<script" not in page


def test_the_verdict_is_on_the_card_and_in_every_read(
    cli: Callable[..., Any], audited: Path, marked: Path, reader: Path
) -> None:
    card = load_card(reader)
    assert card.audit_verdict.startswith("FAIL ")
    assert "T3" in card.audit_verdict
    film = next((marked / "images").rglob("*.png"), None) or next(marked.rglob("*.png"))
    read = cli("read", film, "--reader", reader, "--json")
    assert card.audit_verdict in read.stdout


def test_some_questions_alone_are_not_recorded_and_strict_ends_with_five(
    cli: Callable[..., Any], marked: Path, reader: Path, tmp_path: Path, audited: Path
) -> None:
    before = (reader / "card.json").read_bytes()
    asked = ("audit", reader, "--data", marked, "--segmenter", "none", "--only", "T3", "--strict")
    result = cli(*asked, "--out", tmp_path / "a", "--json")
    assert result.exit_code == 5
    assert [line["code"] for line in json.loads(result.stdout)["lines"]] == ["T3"]
    assert (reader / "card.json").read_bytes() == before
    loose = cli(*asked, "--threshold", "t3_share_fail=5", "--out", tmp_path / "b", "--json")
    assert loose.exit_code == 0
    assert json.loads(loose.stdout)["lines"][0]["thresholds"]["t3_share_fail"] == 5


def test_without_masks_the_reader_stays_open(
    cli: Callable[..., Any], marked: Path, reader: Path, tmp_path: Path
) -> None:
    result = cli(
        "audit", reader, "--data", marked, "--organ", "none", "--only", "T4", "--out", tmp_path / "a", "--json"
    )
    found = json.loads(result.stdout)
    assert found["lines"][0]["answer"] == "NOT ASSESSABLE"
    assert found["verdict"].startswith("OPEN T1, T2, T3, T4")


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--only", "T99"), 2, "expected codes among T1, T2"),
        (("--threshold", "t3=1"), 2, "expected the name of a threshold as NAME=VALUE, got 't3=1'"),
        (("--split", "holdout"), 3, "expected images in the split 'holdout', got none"),
    ],
)
def test_what_makes_no_sense_is_refused(
    cli: Callable[..., Any], marked: Path, reader: Path, tmp_path: Path, flags: tuple[str, ...], code: int, message: str
) -> None:
    result = cli("audit", reader, "--data", marked, "--segmenter", "none", *flags, "--out", tmp_path / "a")
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "a").exists()


def test_a_data_set_of_other_labels_is_refused(cli: Callable[..., Any], marked: Path, tmp_path: Path) -> None:
    result = cli("audit", "chest-pneumonia", "--data", marked, "--out", tmp_path / "a")
    assert result.exit_code == 3
    assert "expected a data set with the reader's classes NORMAL, PNEUMONIA" in " ".join(result.stderr.split())
