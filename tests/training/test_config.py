"""Settings: ranges, recipes, and the TOML that comes back."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from wetread.errors import UsageError
from wetread.models.card import ReaderCard
from wetread.training.config import (
    NAME_PATTERN,
    LoopSettings,
    SegmentConfig,
    TrainingConfig,
    config_of,
    config_to_toml,
    load_recipe,
    make_config,
)
from wetread.training.study_config import StudyConfig


def recipe(folder: Path, text: str) -> Path:
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return folder / "recipe.toml"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learning_rate": 1e-05, "operating_points": ("youden",), "gate": False, "weights": r"C:\nets\a.safetensors"},
        {"population": 'adults, "outpatients"\nand\ttabs \x7f \x01 Grüße', "limits": ("one", 'two "quoted"')},
        {"name": "a.b_c-1", "modalities": ("CR", "DX"), "mlflow": "http://localhost:5000"},
    ],
)
def test_settings_written_as_toml_come_back(tmp_path: Path, changes: dict[str, object]) -> None:
    config = TrainingConfig(**changes)
    text = config_to_toml(config)
    assert make_config(load_recipe(recipe(tmp_path, text))) == config
    assert set(tomllib.loads(text)) == {key for key, value in config.model_dump().items() if value is not None}


def test_the_recipes_of_the_project_are_valid(repository: Path) -> None:
    found = sorted((repository / "recipes").glob("*.toml"))
    assert found
    for path in found:
        keys = tomllib.loads(path.read_text(encoding="utf-8"))
        kind: type[LoopSettings] = SegmentConfig if "organs" in keys else TrainingConfig
        kind = StudyConfig if keys.get("level") else kind
        config_of(kind, load_recipe(path, kind))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "expected settings of `wetread train` in recipe.toml, got 'epoch'; did you mean 'epochs'?"),
        ("qqqqqqq = 3", "got 'qqqqqqq'; `wetread train --help` lists them"),
        ("epochs = ", "expected a TOML recipe at recipe.toml, got TOMLDecodeError; check path and syntax"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe(tmp_path, text))
    assert message in str(caught.value)


def test_a_missing_recipe_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a TOML recipe at nowhere\.toml, got FileNotFoundError"):
        load_recipe(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "expected a valid epochs, got 0; Input should be greater than or equal to 1"),
        ({"dropout": 1.0}, "expected a valid dropout, got 1.0; Input should be less than 1"),
        ({"learning_rate": -1}, "expected a valid learning_rate, got -1; Input should be greater than 0"),
        ({"fit": "squeeze"}, "expected a valid fit, got 'squeeze'; Input should be 'pad', 'stretch' or 'crop'"),
        ({"seed": "one"}, "expected a valid seed, got 'one'; Input should be a valid integer"),
        ({"colour": 1}, "expected a valid colour, got 1; Extra inputs are not permitted"),
    ],
)
def test_a_value_out_of_range_names_its_setting(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_config(settings)
    assert message in str(caught.value)


def test_the_name_of_a_run_is_one_that_a_card_takes() -> None:
    (rule,) = (m for m in ReaderCard.model_fields["name"].metadata if hasattr(m, "pattern"))
    assert rule.pattern == NAME_PATTERN
    assert TrainingConfig(model="vit/tiny", seed=3).run_name == "vit-tiny-features-seed3"
    assert TrainingConfig(name="mine").run_name == "mine"


def test_every_setting_says_what_it_is() -> None:
    for name, field in TrainingConfig.model_fields.items():
        assert field.description, name
