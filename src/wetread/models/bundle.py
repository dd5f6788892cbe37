"""Reader bundles on disk: a folder with card, safetensors weights and a README made from the card.

Weights are stored as float16 (computed in float32). A bundle is written whole or not at all,
verified by hash when loaded, and never holds a pickle.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from wetread.errors import BundleRefused, WetreadError, expected
from wetread.models.card import (
    BundleCard,
    Card,
    ForeignSpec,
    GuideSpec,
    ReaderCard,
    SegmenterCard,
    parse_any_card,
    parse_card,
)
from wetread.models.readme import card_readme
from wetread.provenance import atomic_folder, file_sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wetread.models.guide import Guide
    from wetread.models.mil import StudyReader
    from wetread.models.networks import Network
    from wetread.models.organs import Segmenter
    from wetread.models.outlier import FeatureStatistics
    from wetread.models.predict import Reader

__all__ = [
    "AUDIT_FILE",
    "HIDING_MARGIN",
    "PICKLES",
    "ZOO",
    "export_reader",
    "find_reader",
    "import_reader",
    "list_bundles",
    "list_readers",
    "load_any_card",
    "load_card",
    "load_finder",
    "load_guide",
    "load_reader",
    "load_segmenter",
    "load_study_reader",
    "network_file",
    "round_weights",
    "save_reader",
]

logger = logging.getLogger(__name__)

ZOO = Path(__file__).parent / "zoo"
"""Readers shipped with the package."""

AnyCard = TypeVar("AnyCard", ReaderCard, SegmenterCard)
Module = TypeVar("Module", bound="nn.Module")

PICKLES = frozenset({".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib", ".npy", ".npz"})
"""Endings of files that can run code when loaded; none is ever opened."""

HIDING_MARGIN = 0.03
"""How far a mask is widened before it is painted over, share of the shorter side: a border tells of its organ."""

AUDIT_FILE = "audit.json"
"""The last audit of a reader, beside its card; its pictures stay in the folder of the audit."""

_GATE_FILE = "gate.safetensors"
_HELD_OUT_FILE = "held-out.safetensors"
_MAX_BUNDLE_BYTES = 8 << 30
_RATIO, _RATIO_FROM_BYTES = 200, 64 << 20
"""Weights hardly compress: above this an archive is a bomb."""


def network_file(index: int) -> str:
    """Name of the weights file of network ``index`` (0: ``model.safetensors``)."""
    return "model.safetensors" if index == 0 else f"model-{index + 1}.safetensors"


def _stored(value: Tensor) -> Tensor:
    """Return ``value`` as float16, or as it is where it has no float16 (a variance above 65504)."""
    if not value.is_floating_point():
        return value.contiguous()
    half = value.half()
    return (value if bool((half.isinf() & ~value.isinf()).any()) else half).contiguous()


def round_weights(network: Module) -> Module:
    """Round the weights in place to what a bundle stores, so that what is judged is what is shipped."""
    state = {key: _stored(value).to(value.dtype) for key, value in network.state_dict().items()}
    network.load_state_dict(state)
    return network


def save_reader(
    folder: Path,
    card: AnyCard,
    networks: Sequence[nn.Module],
    statistics: FeatureStatistics | None = None,
    *,
    held_out: Mapping[str, int] | None = None,
    failure: type[WetreadError] = WetreadError,
) -> AnyCard:
    """Write a bundle to ``folder``, in place of an older one; return the card with its hashes filled in.

    ``statistics``: what a reader's gate needs; ``held_out``: see :class:`~wetread.models.organs.Segmenter`.

    Raises:
        BundleRefused: ``folder`` holds other things than a reader.
        WetreadError: or ``failure``: the disk is full or the place may not be written.
    """
    import numpy as np
    from safetensors.numpy import save_file as save_arrays

    from wetread.models.organs import held_out_arrays

    tables: dict[str, Mapping[str, object]] = {}
    if statistics is not None:
        tables[_GATE_FILE] = statistics.tensors()
    if held_out:
        tables[_HELD_OUT_FILE] = held_out_arrays(held_out)

    if folder.exists() and not (folder / "card.json").is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BundleRefused(
            expected("a new folder or that of a reader", f"{folder.name} with other files", "name another")
        )

    with atomic_folder(folder, replace=True, failure=failure) as scratch:
        hashes: dict[str, str] = {}
        for index, network in enumerate(networks):
            for name in _write_network(network, scratch, index, exact=_foreign(card) is not None):
                hashes[name] = file_sha256(scratch / name)
        for name, arrays in tables.items():
            save_arrays({key: np.asarray(value) for key, value in arrays.items()}, scratch / name)
            hashes[name] = file_sha256(scratch / name)
        for name in hashes:
            (scratch / name).chmod(0o644)  # safetensors writes for the owner alone; a bundle is to be shared
        final = card.model_copy(update={"weights": hashes, "networks": len(networks)})
        (scratch / "card.json").write_text(final.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (scratch / "README.md").write_text(card_readme(final), encoding="utf-8")
    return final


def _write_network(network: nn.Module, folder: Path, index: int, *, exact: bool) -> list[str]:
    """Write one network; return the names of its files. ``exact``: not as float16, which moves the outputs."""
    from safetensors.torch import save_file

    files: Mapping[str, Path] = getattr(network, "files", {})
    for name, file in files.items():
        shutil.copyfile(file, folder / name)
    if files:
        return list(files)
    state = network.state_dict()
    save_file(
        {key: value.contiguous() if exact else _stored(value) for key, value in state.items()},
        folder / network_file(index),
    )
    return [network_file(index)]


def _foreign(card: BundleCard) -> ForeignSpec | None:
    return card.foreign if isinstance(card, ReaderCard) else None


def _shelves(extra: Sequence[Path]) -> list[Path]:
    return [*extra, ZOO]


def list_readers(shelves: Sequence[Path] = ()) -> list[tuple[Path, ReaderCard]]:
    """Return (folder, card) of every reader on the given shelves and in the package, by name."""
    return [(folder, card) for folder, card in list_bundles(shelves) if isinstance(card, ReaderCard)]


def list_bundles(shelves: Sequence[Path] = ()) -> list[tuple[Path, Card]]:
    """Return (folder, card) of every reader and segmenter on the given shelves and in the package, by name.

    A folder whose card cannot be read is left out and named in a warning: it must not hide the others.
    """
    found: list[tuple[Path, Card]] = []
    for folder in [path.parent for shelf in _shelves(shelves) if shelf.is_dir() for path in shelf.glob("*/card.json")]:
        try:
            found.append((folder, load_any_card(folder)))
        except BundleRefused as refused:
            logger.warning("%s is no reader: %s", folder.name, refused)
    return sorted(found, key=lambda pair: pair[1].name)


def find_reader(name: str | Path, shelves: Sequence[Path] = ()) -> Path:
    """Return the folder of a reader given its name or its folder (a run folder works too).

    Raises:
        BundleRefused: there is none; the message lists those there are.
    """
    given = Path(name)
    for candidate in (given, given / "reader"):
        if (candidate / "card.json").is_file():
            return candidate
    for shelf in _shelves(shelves):
        if given.name == str(name) and (shelf / str(name) / "card.json").is_file():
            return shelf / str(name)
    known = ", ".join(card.name for _, card in list_bundles(shelves)) or "none installed"
    raise BundleRefused(
        expected("the name or folder of a reader", repr(str(name)), f"choose one of: {known}; or train one")
    )


def load_card(folder: Path) -> ReaderCard:
    """Read the card of the reader in ``folder``."""
    return parse_card(_card_text(folder), folder.name)


def load_any_card(folder: Path) -> Card:
    """Read the card of the reader or segmenter in ``folder``."""
    return parse_any_card(_card_text(folder), folder.name)


def _card_text(folder: Path) -> str:
    try:
        return (folder / "card.json").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleRefused(
            expected(f"a readable card.json in {folder.name}", type(error).__name__, "check the path")
        ) from error


def _verify(folder: Path, card: BundleCard) -> None:
    """Check that every file of the bundle is listed in the card and has the hash that stands there."""
    foreign = _foreign(card)
    graph = foreign is not None and foreign.kind == "onnx"
    needed = ["model.onnx"] if graph else [network_file(index) for index in range(card.networks)]
    unlisted = [name for name in needed if name not in card.weights]
    if unlisted:
        raise BundleRefused(
            expected(f"a sha256 for {unlisted[0]} in the card of {folder.name}", "none", "export the reader again")
        )
    for name, wanted in card.weights.items():
        file = folder / name
        if PurePosixPath(name).name != name or file.suffix not in (".safetensors", *((".onnx",) if graph else ())):
            raise BundleRefused(expected("plain .safetensors names in the card", repr(name), "export it again"))
        if not file.is_file():
            raise BundleRefused(expected(f"{name} in {folder.name}", "no such file", "copy the whole folder"))
        if (found := file_sha256(file)) != wanted:
            raise BundleRefused(
                expected(f"{name} with sha256 {wanted[:12]}…", f"{found[:12]}…", "copy or export the reader again")
            )


def load_reader(name: str | Path, shelves: Sequence[Path] = ()) -> Reader:
    """Load a reader by name or folder, after checking the hashes of its weights.

    Raises:
        BundleRefused: no such reader, a damaged or altered file, weights that do not fit, or a reader of studies.
    """
    found = _loaded(name, shelves)
    if found.card.study is not None:
        raise BundleRefused(
            expected(
                "a reader of single images",
                f"{found.card.name}, which answers for whole studies",
                "use `wetread read` or `wetread evaluate`, or name a reader of images",
            )
        )
    return found


def _loaded(name: str | Path, shelves: Sequence[Path]) -> Reader:
    from safetensors.numpy import load_file as load_arrays

    from wetread.models.outlier import FeatureStatistics
    from wetread.models.predict import Reader

    folder = find_reader(name, shelves)
    card = load_card(folder)
    _verify(folder, card)
    networks = [_network(folder, card, index) for index in range(card.networks)]
    gate = folder / _GATE_FILE
    statistics = FeatureStatistics.from_tensors(load_arrays(gate)) if _GATE_FILE in card.weights else None
    guide = load_guide(card.guide, shelves) if card.guide and card.guide.when_reading else None
    return Reader(card, networks, statistics, guide)


def load_study_reader(name: str | Path, shelves: Sequence[Path] = ()) -> StudyReader:
    """Load a reader of studies by name or folder.

    Raises:
        BundleRefused: no such reader, a damaged one, or one of single images.
    """
    from wetread.models.mil import StudyReader

    return StudyReader(_loaded(name, shelves))


def _network(folder: Path, card: ReaderCard, index: int) -> Network:
    from wetread.models.backbones import network_of
    from wetread.models.foreign_networks import checkpoint_network, graph_network
    from wetread.models.mil import study_network_of

    if card.study is not None:
        return _weighted(study_network_of(card), folder, card, index)
    if card.foreign is None:
        return _weighted(network_of(card), folder, card, index)
    if card.foreign.kind == "onnx":
        return graph_network(card, folder)
    return _weighted(checkpoint_network(card), folder, card, index)


def load_guide(spec: GuideSpec, shelves: Sequence[Path] = ()) -> Guide:
    """Load the segmenter that a guided reader was trained with.

    Raises:
        BundleRefused: there is none of that name, or it has other weights.
    """
    from wetread.models.guide import Guide

    segmenter = load_segmenter(spec.segmenter, shelves)
    if segmenter.card.sha256 != spec.sha256:
        raise BundleRefused(
            expected(
                f"the segmenter {spec.segmenter} with sha256 {spec.sha256[:12]}…",
                f"{segmenter.card.sha256[:12]}…",
                "import the segmenter that the reader was trained with",
            )
        )
    return Guide(spec, segmenter)


def load_finder(organ: str, segmenter: str | Path, shelves: Sequence[Path] = ()) -> Guide:
    """Load what finds an organ that is to be hidden, its mask widened by :data:`HIDING_MARGIN`.

    Raises:
        BundleRefused: no such segmenter, or a damaged one.
        UsageError: it does not find that organ.
    """
    from wetread.models.guide import Guide

    found = load_segmenter(segmenter, shelves)
    spec = GuideSpec(organ=organ, segmenter=str(segmenter), sha256=found.card.sha256, margin=HIDING_MARGIN)
    return Guide(spec, found)


def load_segmenter(name: str | Path, shelves: Sequence[Path] = ()) -> Segmenter:
    """Load a segmenter by name or folder, after checking the hashes of its weights.

    Raises:
        BundleRefused: no such segmenter, a damaged or altered file, or weights that do not fit.
    """
    from safetensors.numpy import load_file as load_arrays

    from wetread.models.organs import Segmenter, held_out_of
    from wetread.models.segmenters import segmenter_of

    folder = find_reader(name, shelves)
    card = load_any_card(folder)
    if not isinstance(card, SegmenterCard):
        raise BundleRefused(expected("a segmenter", f"the reader {card.name}", "use `wetread read`, or train one"))
    _verify(folder, card)
    networks = [_weighted(segmenter_of(card), folder, card, index) for index in range(card.networks)]
    known = _HELD_OUT_FILE in card.weights
    return Segmenter(card, networks, held_out_of(load_arrays(folder / _HELD_OUT_FILE)) if known else None)


def _weighted(network: Module, folder: Path, card: BundleCard, index: int) -> Module:
    """Give ``network`` the stored weights, computed with in float32."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(folder / network_file(index))
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except (RuntimeError, SafetensorError, OSError) as error:
        raise BundleRefused(
            expected(f"weights of {card.architecture}", f"others in {network_file(index)}", "export it again")
        ) from error
    return network.to(memory_format=torch.channels_last)


def export_reader(name: str | Path, target: Path, shelves: Sequence[Path] = ()) -> Path:
    """Write the reader to ``target``: a ``.zip`` file, or a folder of that name."""
    folder = find_reader(name, shelves)
    card = load_any_card(folder)
    _verify(folder, card)
    if target.exists():
        raise BundleRefused(expected("a new path to export to", f"{target.name} exists", "choose another"))
    files = [folder / part for part in ("card.json", "README.md", *card.weights)]
    files += [folder / AUDIT_FILE] if (folder / AUDIT_FILE).is_file() else []
    if target.suffix != ".zip":
        with atomic_folder(target) as scratch:
            for file in files:
                shutil.copy2(file, scratch / file.name)
        return target
    partial = target.with_suffix(".zip.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for file in files:
                archive.write(file, file.name)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _unpack(archive_path: Path, scratch: Path) -> None:
    """Unpack a bundle archive, refusing paths, pickles and oversize before anything is written."""
    try:
        archive = zipfile.ZipFile(archive_path)
    except (zipfile.BadZipFile, OSError) as error:
        raise BundleRefused(
            expected("a zip file made by `wetread models export`", archive_path.name, "export the reader again")
        ) from error
    with archive:
        names = archive.namelist()
        _refuse_pickles(names)
        if any(PurePosixPath(name).name != name for name in names):
            raise BundleRefused(expected("files without folders in the zip", "paths", "export the reader again"))
        if "card.json" not in names:
            raise BundleRefused(expected("an archive with card.json in it", "one without", "export the reader again"))
        size = sum(item.file_size for item in archive.infolist())
        if size > min(_MAX_BUNDLE_BYTES, max(_RATIO_FROM_BYTES, _RATIO * archive_path.stat().st_size)):
            got = f"{size >> 20} MiB packed into {archive_path.stat().st_size >> 20}"
            raise BundleRefused(expected("at most 8 GiB of weights, and no bomb", got, "check the archive"))
        try:
            archive.extractall(scratch)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
            raise BundleRefused(
                expected("a whole zip file", f"a damaged or locked {archive_path.name}", "export the reader again")
            ) from error


def _refuse_pickles(names: Sequence[str]) -> None:
    pickles = [name for name in names if PurePosixPath(name).suffix.lower() in PICKLES]
    if pickles:
        raise BundleRefused(
            expected(
                "safetensors weights only",
                f"{pickles[0]}, which can run code when loaded",
                "convert it first",
            )
        )


def import_reader(source: Path, shelf: Path, name: str | None = None) -> Path:
    """Verify a bundle (zip or folder) and copy it to ``shelf``; return its new folder.

    Raises:
        BundleRefused: pickle inside, wrong hash, wrong schema, or the name is taken.
    """
    with tempfile.TemporaryDirectory(prefix="wetread-import-") as temporary:
        scratch = Path(temporary)
        if source.is_dir():
            found = sorted(path.name for path in source.iterdir())
            _refuse_pickles(found)
            card = load_any_card(source)
            for part in ("card.json", AUDIT_FILE, *card.weights):
                if (source / part).is_file() and PurePosixPath(part).name == part:
                    shutil.copy2(source / part, scratch / part)
        else:
            _unpack(source, scratch)
        card = load_any_card(scratch)
        _verify(scratch, card)
        _load(scratch, card)  # the weights must fit the card's architecture
        renamed = parse_any_card(card.model_copy(update={"name": name or card.name}).model_dump_json(), source.name)
        target = shelf / renamed.name
        if target.exists() or (ZOO / renamed.name).exists():
            raise BundleRefused(expected("a new reader name", f"{renamed.name}, which exists", "give --name"))
        with atomic_folder(target) as folder:
            for part in (*card.weights, *([AUDIT_FILE] if (scratch / AUDIT_FILE).is_file() else [])):
                shutil.copy2(scratch / part, folder / part)
            (folder / "card.json").write_text(renamed.model_dump_json(indent=2) + "\n", encoding="utf-8")
            (folder / "README.md").write_text(card_readme(renamed), encoding="utf-8")
    return target


def _load(folder: Path, card: Card) -> Reader | Segmenter:
    return load_segmenter(folder) if isinstance(card, SegmenterCard) else _loaded(folder, ())
