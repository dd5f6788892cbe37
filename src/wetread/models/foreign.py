"""Readers from elsewhere: an ONNX graph or a timm checkpoint with a small card becomes a bundle like our own.

Decided here: nothing is installed unless its reference pair is reproduced by the files that are stored, read as any
reader is; an import without a pair has to be asked for, and its card says so.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from wetread.errors import BundleRefused, UsageError, expected
from wetread.models.bundle import PICKLES, ZOO, load_reader, save_reader
from wetread.models.card import ForeignSpec, HeadSpec, ReaderCard, ReferenceCheck
from wetread.models.foreign_card import ForeignCard, Pairs, read_foreign_card, read_pairs
from wetread.provenance import file_sha256

if TYPE_CHECKING:
    from wetread.models.networks import Network
    from wetread.models.predict import Reader

__all__ = ["ONNX", "WITHOUT_REFERENCE", "ForeignSource", "import_foreign", "is_foreign"]

ONNX = "ONNX graph"
"""What the card of an imported graph has in the place of an architecture."""

WITHOUT_REFERENCE = (
    "Imported without a reference pair: nothing shows that it is fed here as it was where it was trained."
)
_NO_GATE = "It has no feature statistics: images unlike those it learned from are not recognised."
_NO_GRADIENTS = (
    "An ONNX graph gives no gradients: occlusion, RISE and LIME can explain it; "
    "class activation maps and gradient methods cannot."
)
_NOT_RESAMPLED = (
    "The reference images had the size of the input: that images of other sizes are resampled as the original "
    "does is not shown."
)
_SOFT = ("Sigmoid", "Softmax")


@dataclass(frozen=True)
class ForeignSource:
    """What is imported: an .onnx or .safetensors file or a folder, its small card, and reference pairs beside it."""

    path: Path
    card: Path | None
    reference: Path | None = None
    without_reference: bool = False


def is_foreign(path: Path) -> bool:
    """Whether ``path`` is no bundle of ours: a weights file, or a folder without our card."""
    if path.is_dir():
        return not (path / "card.json").is_file()
    return path.suffix.lower() in {".onnx", ".safetensors", *PICKLES}


def import_foreign(source: ForeignSource, shelf: Path, name: str | None = None) -> ReaderCard:
    """Import a reader made elsewhere to ``shelf``; return its card, whose ``foreign`` says how well it was reproduced.

    Raises:
        BundleRefused: a pickle, a damaged file, a card that does not fit or does not reproduce the reference pair, no
            pair, or a name that is taken.
        UsageError: a missing package or flags that contradict each other.
        ImageRefused: a reference image cannot be read.
    """
    kind = _kind(source.path)
    if source.card is None:
        raise UsageError(
            expected(
                f"a card for {source.path.name}",
                "none",
                "state classes, input and output in a TOML file (docs/how-to/import-a-reader.md) and give it as --card",
            )
        )
    small = read_foreign_card(source.card)
    small = small.model_copy(update={"name": name or small.name})
    target = shelf / small.name
    if target.exists() or (ZOO / small.name).exists():
        raise BundleRefused(expected("a new reader name", f"{small.name}, which exists", "give --name"))
    pairs = _pairs(source, small)
    with tempfile.TemporaryDirectory(prefix="wetread-import-") as temporary:
        reader = _stored(kind, source.path, small, Path(temporary))
        check = _reproduced(reader, pairs, small.tolerance)
        return save_reader(target, _finished(reader.card, check), reader.networks)


def _kind(path: Path) -> Literal["onnx", "checkpoint"]:
    if not path.exists():
        raise BundleRefused(expected("an ONNX or safetensors file", f"no such path: {path.name}", "check it"))
    if path.is_dir():
        if (path / "model.safetensors").is_file():
            return "checkpoint"
        pickled = sorted(file.name for file in path.iterdir() if file.suffix.lower() in PICKLES)
        if pickled:
            raise _pickle(pickled[0])
        raise BundleRefused(expected(f"model.safetensors in {path.name}", "no such file", "name the file itself"))
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise _pickle(path.name)
    if suffix not in (".onnx", ".safetensors"):
        raise BundleRefused(expected("an .onnx or .safetensors file", path.name, "export the model to one of them"))
    return "onnx" if suffix == ".onnx" else "checkpoint"


def _pickle(name: str) -> BundleRefused:
    return BundleRefused(
        expected(
            "an ONNX graph or safetensors weights",
            f"{name}, which can run code when loaded",
            "where it was made, save model.state_dict() with safetensors or export the model to ONNX",
        )
    )


def _pairs(source: ForeignSource, small: ForeignCard) -> Pairs:
    given = source.reference is not None or bool(small.reference)
    if given and source.without_reference:
        raise UsageError(expected("no reference pair", "one and --without-reference", "leave the flag out"))
    if not given and not source.without_reference:
        raise BundleRefused(
            expected(
                "a reference pair: an image and what the original gives for it",
                "none",
                "add [[reference]] to the card or give --reference; --without-reference imports it unproved",
            )
        )
    if source.card is None or not given:
        return ()
    return read_pairs(small, source.card, source.reference)


def _stored(kind: str, path: Path, small: ForeignCard, scratch: Path) -> Reader:
    """Write a bundle to ``scratch`` and load it: what is checked is what is installed."""
    make = _graph if kind == "onnx" else _checkpoint
    card, network = make(path, small, scratch)
    save_reader(scratch / "reader", card, [network])
    return load_reader(scratch / "reader")


def _graph(path: Path, small: ForeignCard, scratch: Path) -> tuple[ReaderCard, Network]:
    from wetread.models.foreign_networks import graph_network
    from wetread.models.foreign_onnx import pack_graph

    spec = small.input.spec
    output = small.output
    packed = pack_graph(path, scratch, spec, layout=small.input.layout, output=output.name, features=output.features)
    if output.gives == "logits" and packed.last_operator in _SOFT:
        raise BundleRefused(
            expected(
                f"gives = 'probabilities' for a graph that ends in {packed.last_operator}",
                "'logits'",
                "correct [output] in the card",
            )
        )
    card = _card(small, path, ONNX, packed.outputs)
    changes = {"layout": packed.layout, "features": output.features}
    card = card.model_copy(update={"foreign": _foreign(card).model_copy(update=changes)})
    return card, graph_network(card, scratch)


def _checkpoint(path: Path, small: ForeignCard, scratch: Path) -> tuple[ReaderCard, Network]:
    from wetread.models.foreign_checkpoint import fitted_network, outputs_of, read_checkpoint

    if small.output.name or small.output.features:
        raise BundleRefused(
            expected("name and features in [output] for an ONNX graph alone", "a checkpoint", "leave them out")
        )
    checkpoint = read_checkpoint(path, small.architecture, small.prefix)
    card = _card(small, checkpoint.file, checkpoint.architecture, outputs_of(checkpoint))
    return fitted_network(card, checkpoint)


def _card(small: ForeignCard, file: Path, architecture: str, outputs: int) -> ReaderCard:
    mean, std = small.input.per_channel if small.input.channels_differ else ((), ())
    foreign = ForeignSpec(
        kind="onnx" if architecture == ONNX else "checkpoint",
        file=file.name,
        sha256=file_sha256(file),
        gives=small.output.gives,
        outputs=outputs,
        columns=small.columns_of(outputs),
        mean=mean,
        std=std,
    )
    try:
        return ReaderCard(
            name=small.name,
            version=small.version,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            task=small.task,
            classes=small.classes,
            labels=small.outputs,
            architecture=architecture,
            head=HeadSpec(kind="none"),
            input=small.input.spec,
            weights={},
            data=small.data.card,
            intended_use=small.intended_use,
            limits=small.limits,
            licence=small.licence,
            foreign=foreign,
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BundleRefused(expected("values that a card takes", f"{field}: {first['msg']}", "correct it")) from error


def _foreign(card: ReaderCard) -> ForeignSpec:
    from wetread.models.foreign_networks import foreign_spec

    return foreign_spec(card)


def _reproduced(reader: Reader, pairs: Pairs, tolerance: float) -> ReferenceCheck | None:
    from wetread.models.foreign_reference import check_pairs

    return check_pairs(reader, pairs, tolerance) if pairs else None


def _finished(card: ReaderCard, check: ReferenceCheck | None) -> ReaderCard:
    """Add how well the pair was reproduced, and what follows from where the reader comes from."""
    spec = _foreign(card).model_copy(update={"reference": check})
    limits = [*card.limits, _NO_GATE]
    if spec.kind == "onnx":
        limits.append(_NO_GRADIENTS)
    if check is None:
        limits.append(WITHOUT_REFERENCE)
    elif not check.resampled:
        limits.append(_NOT_RESAMPLED)
    return card.model_copy(update={"foreign": spec, "limits": tuple(limits)})
