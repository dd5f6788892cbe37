"""Study-level learning: patients of the Kermany set, papers of COVID-CT, key views of phantoms, a CT of 300 slices.

Each of five folds is a test split that no weight, temperature, epoch or threshold of its reader has seen; the next fold
is validation. The baseline has the same network, features and folds, but learns and answers for single images, whose
calibrated probabilities are then averaged or maximised over the study. Features are those of the embedded ImageNet
encoder, frozen and computed once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import Figure, arguments, run_child, write_figures
from benchmarks.kermany import progress
from wetread.datasets.importers.registry import import_dataset
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.datasets.phantom_mura import TRUTH, MuraPlan, make_mura
from wetread.datasets.splits import make_folds, make_split
from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.intervals import Resampler, proportion
from wetread.evaluation.study import aggregated, paired_kappa
from wetread.models.bundle import load_study_reader
from wetread.runtime import prepare_torch
from wetread.training.study import train_study
from wetread.training.study_config import StudyConfig
from wetread.training.study_predictions import StudyPredictions, predict_studies
from wetread.types import Estimate

PARTS = ("kermany", "covid-ct", "keys", "memory", "keys-end-to-end")
FOLDS = 5
KERMANY_POOLINGS = ("attention", "mean")
SLICES = 300
_RESAMPLES = 2000

KERMANY = (
    "4,082 studies (personN and cause, or A of IM-A-B) of 3,103 patients, train and test of the publication together; "
    "a number that occurs in both, or with both causes, counts as one patient; {folds}-fold by patient, three "
    "folds to train, one to validate, one to test"
)
CT = (
    "slices of one paper or patient (name up to -p, else up to %, then .) as a study; {folds}-fold by study, three to "
    "train, one to validate, one to test; what was held back of the set is not in it"
)


def main() -> None:
    parser = arguments(__doc__, "results/mil.csv")
    parser.add_argument("--kermany", type=Path, help="kermany-cxr with train/ and test/")
    parser.add_argument("--covid-ct", type=Path, help="covid-ct with CT_COVID/ and CT_NonCOVID/")
    parser.add_argument("--work", type=Path, default=Path("runs/mil"), help="what is there is not made again")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    prepare_torch()
    figures: list[Figure] = []
    for part in asked.only:
        rows = part_figures(part, asked.kermany, asked.covid_ct, asked.work)
        for row in rows:
            print(f"{row.what:74} {row.value:.4f} ({row.low or 0:.4f} to {row.high or 0:.4f}) {row.met}", flush=True)
        figures += rows
        write_figures(asked.out, figures)


def part_figures(part: str, kermany: Path | None, covid_ct: Path | None, work: Path) -> list[Figure]:
    """The rows of one part; a part whose data are not named is left out and said so."""
    if part in KEY_PARTS:
        return key_figures(work, KEY_PARTS[part])
    if part == "memory":
        return memory_figures(work)
    given = {"kermany": kermany, "covid-ct": covid_ct}[part]
    if given is None:
        print(f"{part}: left out, --{part} names no folder", file=sys.stderr)
        return []
    return kermany_figures(given, work) if part == "kermany" else ct_figures(given, work)


def kermany_patients(source: Path) -> Manifest:
    """Normal, bacterial or viral: a study is one number with one cause; the patient is the number alone."""
    manifest = import_dataset(source, layout="kermany").manifest
    table = manifest.table.copy()
    table["label"] = table["subtype"].fillna("NORMAL")
    table["study"] = table["patient"] + "/" + table["label"]
    table["patient"] = table["patient"].str.split("/").str[1]
    return manifest.with_table(
        table.assign(split=None),
        name="kermany-patients",
        task="multiclass",
        classes=("NORMAL", "bacteria", "virus"),
        split=None,
    )


def ct_papers(source: Path) -> Manifest:
    """COVID-CT: slices of one paper or patient are a study."""
    rows = []
    for folder, label in (("CT_NonCOVID", "other"), ("CT_COVID", "COVID-19")):
        for file in sorted((source / folder).iterdir()):
            name = file.stem.split("-p")[0] if label == "COVID-19" else file.stem.split("%")[0]
            row = {"path": f"{folder}/{file.name}", "patient": f"{label} {name}", "study": f"{label} {name}"}
            rows.append(row | {"label": label})
    meta = DatasetMeta(name="covid-ct", classes=("other", "COVID-19"), root=str(source.resolve()))
    return Manifest(pd.DataFrame(rows), meta, source)


def single_images(manifest: Manifest) -> Manifest:
    """The same images, each a study of its own."""
    return manifest.with_table(manifest.table.assign(study=manifest.table["path"]))


def out_of_fold(manifest: Manifest, config: StudyConfig, work: Path) -> StudyPredictions:
    """Predictions for every study by a reader whose fold did not hold its patient."""
    folded = make_folds(manifest, FOLDS, seed=0).table["fold"].to_numpy()
    found = []
    for fold in range(FOLDS):
        split = np.where(folded == fold, "test", np.where(folded == (fold + 1) % FOLDS, "val", "train"))
        part = manifest.with_table(manifest.table.assign(split=split), split=None)
        folder = work / f"{config.run_name}-fold-{fold}"
        if not (folder / "reader" / "card.json").is_file():
            train_study(part, config, folder, cache=work / "cache", progress=progress)
        reader = load_study_reader(folder / "reader")
        found.append(predict_studies(reader, part, "test", cache=work / "cache", progress=progress))
    return StudyPredictions(
        pd.concat([one.studies for one in found], ignore_index=True),
        pd.concat([one.views for one in found], ignore_index=True),
    )


def configuration(name: str, pooling: str, **changes: object) -> StudyConfig:
    """Defaults but for pooling; the same for every part."""
    settings = {"name": name, "pooling": pooling, "tensorboard": False, "gate": False, "threads": 1}
    return StudyConfig.model_validate(settings | changes)


def kermany_figures(source: Path, work: Path) -> list[Figure]:
    """Kappa over three classes of MIL, and of the mean and the maximum of image scores."""
    work = work / "kermany"
    manifest, settings = kermany_patients(source), {"batch_size": 128, "learning_rate": 1e-3, "epochs": 20}
    protocol = KERMANY.format(folds=FOLDS)
    labels = manifest.meta.classes
    images = out_of_fold(single_images(manifest), configuration("image", "mean", **settings), work)
    views = images.views.assign(study=images.views["image"].map(manifest.table.set_index("path")["study"]))
    figures = []
    for pooling in KERMANY_POOLINGS:
        studies = out_of_fold(manifest, configuration(pooling, pooling, **settings), work).studies.sort_values("study")
        truth = np.array([labels.index(name) for name in studies["target"]], dtype=np.intp)
        several = studies["images"].to_numpy() > 1
        called = called_of(studies, labels)
        for how in ("mean", "max"):
            table = aggregated(views, labels, "mean" if how == "mean" else "max", "multiclass")
            theirs = called_of(table.set_index("study").loc[studies["study"]], labels)
            bar = ">= 0" if pooling == "attention" else ""
            for what, keep in (("all studies", np.ones_like(several)), ("studies of 2 images or more", several)):
                resampler = Resampler(int(keep.sum()), studies["patient"].to_numpy()[keep], _RESAMPLES)
                names = (f"{how} of image scores", "all classes")
                found = paired_kappa(truth[keep], (called[keep], theirs[keep]), resampler, names, len(labels))
                head = f"kermany, {what}, MIL {pooling}"
                if how == "mean":
                    figures.append(figure(f"{head}: kappa", found.reader, "kappa", protocol))
                if pooling == "attention":
                    figures.append(
                        figure(f"kermany, {what}, {how} of image scores: kappa", found.baseline, "kappa", protocol)
                    )
                figures += difference_rows(f"{head} minus {how} of image scores", found.difference, protocol, bar)
    return figures


def called_of(table: pd.DataFrame, labels: tuple[str, ...]) -> NDArray[np.intp]:
    """The most probable class of each study."""
    scores = np.stack([table[f"probability_{label}"].to_numpy(dtype=np.float64) for label in labels], 1)
    return np.asarray(scores.argmax(1), dtype=np.intp)


def ct_figures(source: Path, work: Path) -> list[Figure]:
    """AUROC of COVID-19 against other findings for papers, by attention and by the mean of image scores."""
    work = work / "covid-ct"
    manifest = ct_papers(source)
    protocol = CT.format(folds=FOLDS)
    figures = []
    for pooling in KERMANY_POOLINGS:
        studies = out_of_fold(manifest, configuration(pooling, pooling, image_size=384), work).studies
        area = auroc_estimate(studies["probability_COVID-19"], studies["target"] == "COVID-19")
        bar = ">= 0.90" if pooling == "attention" else ""
        figures.append(figure(f"covid-ct, MIL {pooling}: AUROC of studies", area, "AUROC", protocol, bar))
    images = out_of_fold(single_images(manifest), configuration("image", "mean", image_size=384), work).views
    views = images.assign(study=images["image"].map(manifest.table.set_index("path")["study"]))
    truth = views.groupby("study", sort=True)["target"].first()
    for how in ("mean", "max"):
        table = aggregated(views, ("COVID-19",), "mean" if how == "mean" else "max", "binary")
        area = auroc_estimate(table["probability_COVID-19"], truth.to_numpy() == "COVID-19")
        figures.append(figure(f"covid-ct, {how} of image scores: AUROC of studies", area, "AUROC", protocol))
    return figures


KEYS = MuraPlan(patients=420, fewest=3, most=6, key_views=True)
KEY_SETTINGS: dict[str, dict[str, object]] = {
    "frozen features": {"epochs": 60, "patience": 20},
    "end to end": {
        "mode": "finetune",
        "image_size": 128,
        "epochs": 24,
        "patience": 24,
        "batch_size": 8,
        "images_held": 16,
        "learning_rate": 1e-3,
        "encoder_rate": 0.1,
    },
}
KEY_PARTS = {"keys": "frozen features", "keys-end-to-end": "end to end"}


def key_studies(work: Path) -> tuple[Manifest, pd.Series]:
    """Phantom bone studies with one key view each, and which views show the finding, by path."""
    if not (work / "studies" / TRUTH).is_file():
        make_mura(work / "studies", KEYS)
    manifest = import_dataset(work / "studies", layout="mura").manifest
    truth = pd.read_csv(work / "studies" / TRUTH).set_index("path")["shows"].astype(bool)
    return make_split(manifest, {"train": 0.8, "val": 0.2}, seed=0), truth


def key_figures(work: Path, name: str) -> list[Figure]:
    """Phantom studies in which one view of several shows the finding: is it found, and named?"""
    work = work / "keys"
    manifest, truth = key_studies(work)
    protocol = (
        f"{KEYS.patients} bone phantoms in MURA's layout, {KEYS.fewest} to {KEYS.most} views; half with a displaced "
        f"fracture or a plate of severity {KEYS.mildest:g} to 1 on exactly one view; attention from ImageNet weights, "
        "labels of studies alone are learned; the released validation set is the test"
    )
    folder = work / name.replace(" ", "-")
    if not (folder / "reader" / "card.json").is_file():
        config = configuration(folder.name, "attention", **KEY_SETTINGS[name])
        resume = (folder / "config.toml").is_file()
        train_study(manifest, config, folder, cache=work / "cache", resume=resume, progress=progress)
    found = predict_studies(load_study_reader(folder / "reader"), manifest, "test", cache=work / "cache")
    area = auroc_estimate(found.studies["probability_positive"], found.studies["target"] == "positive")
    views = found.views[found.views["target"] == "positive"]
    first = views.sort_values("weight_positive", ascending=False).groupby("study").head(1)
    right = proportion(first["image"].map(truth))
    return [
        figure(f"key views, {name}: AUROC of studies", area, "AUROC", protocol, ">= 0.98"),
        figure(f"key views, {name}: attention ranks the right view first", right, "share", protocol, ">= 0.95"),
    ]


_ONE_STUDY = """
import sys
from wetread.runtime import prepare_torch
prepare_torch(1)
from pathlib import Path
from wetread.reading.study import StudyOptions, read_study, study_sources
from wetread.models.bundle import load_study_reader
(study,) = study_sources([Path(sys.argv[2])])
found = read_study(load_study_reader(sys.argv[1]), study, StudyOptions(heatmaps=False)).read
assert len(found.views) == int(sys.argv[3]), len(found.views)
"""


def memory_figures(work: Path) -> list[Figure]:
    """Peak memory of reading one study of 300 slices of 512 x 512 in a process of its own."""
    from PIL import Image

    reader = work / "keys" / "frozen-features" / "reader"
    if not reader.is_dir():
        key_figures(work, KEY_PARTS["keys"])
    folder = work / "slices"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(SLICES):
        file = folder / f"slice-{number:03d}.png"
        if not file.is_file():
            smooth = rng.uniform(0, 255, (16, 16)).astype(np.uint8)
            Image.fromarray(smooth).resize((512, 512)).save(file)
    child = run_child([sys.executable, "-c", _ONE_STUDY, reader, folder, str(SLICES)])
    if child.exit_code:
        raise subprocess.CalledProcessError(child.exit_code, "read of 300 slices", stderr=child.stderr)
    protocol = f"{SLICES} PNG slices of 512 x 512 read as one study by a frozen EfficientNet-lite0 at 224 px, 1 thread"
    return [
        Figure("study of 300 slices: peak memory", child.peak_bytes / 1e9, "GB", protocol, bar="<= 1.5"),
        Figure("study of 300 slices: time from start of the process", child.seconds, "s", protocol),
    ]


def figure(what: str, estimate: Estimate, unit: str, protocol: str, bar: str = "") -> Figure:
    """An estimate as a row; the bar is on its value."""
    value = float("nan") if estimate.value is None else estimate.value
    return Figure(what, value, unit, protocol, estimate.n, estimate.low, estimate.high, bar)


def difference_rows(what: str, found: Estimate, protocol: str, bar: str) -> list[Figure]:
    """A paired difference, and with a ``bar`` its lower bound, which alone can meet one."""
    rows = [figure(what, found, "kappa", f"{protocol}; paired, patients resampled")]
    if bar:
        low = float("nan") if found.low is None else found.low
        rows.append(Figure(f"{what}: lower end of the interval", low, "kappa", protocol, found.n, bar=bar))
    return rows


if __name__ == "__main__":
    main()
