"""Readers from elsewhere: what another framework gave is what they give here, and nothing else is let in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage

from tests.models.foreign_support import CARD, Ramp, export, save_card, small_cnn, write_image
from tests.models.support import image_of
from wetread.errors import BundleRefused, ExplanationFailed, UsageError, WetreadError
from wetread.imaging import load_image
from wetread.models.bundle import export_reader, import_reader, load_reader
from wetread.models.card import ReaderCard
from wetread.models.foreign import WITHOUT_REFERENCE, ForeignSource, import_foreign, is_foreign
from wetread.models.predict import Reader

IMAGENET = tuple(np.array(CARD["input"][key])[:, None, None] for key in ("mean", "std"))


def imagenet(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels (rows, columns) as a network of torchvision is given them, (1, 3, rows, columns)."""
    return np.asarray(((pixels - IMAGENET[0]) / IMAGENET[1])[None])


def bring(folder: Path, source: Path, **keys: Any) -> ReaderCard:
    source_of = ForeignSource(source, folder / "card.toml", **keys)
    return import_foreign(source_of, folder / "shelf")


def probabilities(reader: Reader, *files: Path) -> NDArray[np.float64]:
    return reader.probabilities(reader.forward(reader.prepare([load_image(file) for file in files])))


def sigmoid(z: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(1 / (1 + np.exp(-z)))


def test_a_torch_network_as_onnx_gives_here_what_it_gave_there(tmp_path: Path) -> None:
    network = small_cnn(outputs=3)
    export(network, tmp_path / "net.onnx")
    seen = [write_image(tmp_path / f"{seed}.png", seed=seed) for seed in range(3)]
    there = [network(torch.from_numpy(imagenet(one)).float())[0].detach().numpy() for one in seen]
    save_card(tmp_path, {"image": "0.png", "outputs": there[0]}, top={"task": "multiclass", "classes": ["a", "b", "c"]})
    card = bring(tmp_path, tmp_path / "net.onnx")
    assert card.foreign is not None
    assert card.foreign.reference is not None
    assert card.foreign.reference.largest_difference < 1e-5
    assert card.weights == {"model.onnx": card.foreign.sha256}  # the graph is kept byte for byte
    assert card.sha256 == card.foreign.sha256
    reader = load_reader(tmp_path / "shelf" / "elsewhere")
    here = probabilities(reader, *(tmp_path / f"{seed}.png" for seed in range(3)))
    softmax = np.exp(there) / np.exp(there).sum(1, keepdims=True)
    np.testing.assert_allclose(here, softmax, atol=1e-5)


@pytest.mark.parametrize(
    ("task", "classes", "outputs", "end"),
    [
        ("binary", ["no", "yes"], 1, None),
        ("binary", ["no", "yes"], 1, "Sigmoid"),
        ("binary", ["no", "yes"], 2, None),
        ("binary", ["no", "yes"], 2, "Softmax"),
        ("multiclass", ["a", "b", "c"], 3, None),
        ("multiclass", ["a", "b", "c"], 3, "Softmax"),
        ("multilabel", ["a", "b", "c"], 3, None),
        ("multilabel", ["a", "b", "c"], 3, "Sigmoid"),
    ],
)
def test_every_kind_of_output_becomes_the_same_probabilities(
    tmp_path: Path, task: str, classes: list[str], outputs: int, end: Any
) -> None:
    graph = Ramp(outputs=outputs, end=end)
    x = imagenet(write_image(tmp_path / "a.png"))
    gives = "probabilities" if end else "logits"
    save_card(
        tmp_path,
        {"image": "a.png", "outputs": graph(x)[0]},
        top={"task": task, "classes": classes},
        output={"gives": gives},
    )
    card = bring(tmp_path, graph.save(tmp_path / "net.onnx"))
    assert card.labels == (("yes",) if task == "binary" else tuple(classes))
    exclusive = task == "multiclass" or outputs == 2
    z = graph.logits(x)
    wanted = np.exp(z) / np.exp(z).sum(1, keepdims=True) if exclusive else sigmoid(z)
    here = probabilities(load_reader(tmp_path / "shelf" / "elsewhere"), tmp_path / "a.png")
    np.testing.assert_allclose(here, wanted[:, 1:] if task == "binary" and outputs == 2 else wanted, atol=1e-6)


def test_columns_say_which_outputs_are_the_labels(tmp_path: Path) -> None:
    graph = Ramp(outputs=4)
    x = imagenet(write_image(tmp_path / "a.png"))
    top = {"task": "multilabel", "classes": ["late", "early"]}
    columns = {"gives": "logits", "columns": [3, 0]}
    save_card(tmp_path, {"image": "a.png", "outputs": graph(x)[0]}, top=top, output=columns)
    bring(tmp_path, graph.save(tmp_path / "net.onnx"))
    here = probabilities(load_reader(tmp_path / "shelf" / "elsewhere"), tmp_path / "a.png")
    np.testing.assert_allclose(here, sigmoid(graph(x)[:, [3, 0]]), atol=1e-6)


@pytest.mark.parametrize(
    ("scaling", "change"),
    [
        ({"normalisation": "range", "range": [-1024, 1024], "mean": None, "std": None}, lambda x: 2048 * x - 1024),
        ({"mean": 0.25, "std": 0.5}, lambda x: (x - 0.25) / 0.5),
        ({"normalisation": "zscore", "mean": None, "std": None}, lambda x: (x - x.mean()) / (x.std() + 1e-3)),
    ],
)
def test_scalings(tmp_path: Path, scaling: dict[str, Any], change: Any) -> None:
    graph = Ramp(channels=1)
    x = change(write_image(tmp_path / "a.png"))[None, None]
    save_card(tmp_path, {"image": "a.png", "outputs": graph(x)[0]}, input={"channels": 1, **scaling})
    card = bring(tmp_path, graph.save(tmp_path / "net.onnx"))
    assert card.foreign is not None
    assert card.foreign.mean == ()


def test_an_image_of_another_size_is_padded_and_resampled_on_the_way(tmp_path: Path) -> None:
    seen = write_image(tmp_path / "wide.png", 64, 128)
    floats = PilImage.fromarray(seen.astype(np.float32)).resize((32, 16), PilImage.Resampling.BILINEAR)
    padded = np.zeros((32, 32))
    padded[8:24] = np.asarray(floats)
    graph = Ramp()
    save_card(tmp_path, {"image": "wide.png", "outputs": graph(imagenet(padded))[0]})
    card = bring(tmp_path, graph.save(tmp_path / "net.onnx"))
    assert card.foreign is not None
    assert card.foreign.reference is not None
    assert card.foreign.reference.resampled
    assert not any("resampled" in limit for limit in card.limits)


def test_a_graph_gives_scores_and_no_gradients(tmp_path: Path) -> None:
    seen = write_image(tmp_path / "a.png")
    save_card(tmp_path, {"image": "a.png", "outputs": Ramp()(imagenet(seen))[0]})
    card = bring(tmp_path, Ramp().save(tmp_path / "net.onnx"))
    reader = load_reader(tmp_path / "shelf" / "elsewhere")
    assert not reader.differentiable
    assert any("occlusion, RISE and LIME" in limit for limit in card.limits)
    assert reader.statistics is None
    with pytest.raises(ExplanationFailed, match=r"gradients for gradcam, got an ONNX graph.*use --method occlusion"):
        reader.require_gradients("gradcam")
    forward = reader.forward(reader.prepare([image_of(40, 50), image_of(32, 32)]))
    assert torch.equal(forward.embeddings, forward.logits)  # no inner output was named


def test_the_bundle_moves_like_our_own(tmp_path: Path) -> None:
    seen = write_image(tmp_path / "a.png")
    save_card(tmp_path, {"image": "a.png", "outputs": Ramp()(imagenet(seen))[0]})
    bring(tmp_path, Ramp().save(tmp_path / "net.onnx"))
    archive = export_reader(tmp_path / "shelf" / "elsewhere", tmp_path / "packed.zip")
    copy = import_reader(archive, tmp_path / "other", "copy")
    first, second = load_reader(tmp_path / "shelf" / "elsewhere"), load_reader(copy)
    np.testing.assert_array_equal(probabilities(first, tmp_path / "a.png"), probabilities(second, tmp_path / "a.png"))
    graph = copy / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleRefused, match=r"expected model.onnx with sha256"):
        load_reader(copy)


def test_without_a_reference_it_has_to_be_asked_for_and_is_recorded(tmp_path: Path) -> None:
    save_card(tmp_path)
    graph = Ramp().save(tmp_path / "net.onnx")
    with pytest.raises(BundleRefused, match=r"expected a reference pair.*got none.*--without-reference imports it"):
        bring(tmp_path, graph)
    assert not (tmp_path / "shelf").exists()
    assert WITHOUT_REFERENCE in bring(tmp_path, graph, without_reference=True).limits
    write_image(tmp_path / "a.png")
    save_card(tmp_path, {"image": "a.png", "outputs": [0.0]}, top={"name": "other"})
    with pytest.raises(UsageError, match=r"expected no reference pair, got one and --without-reference"):
        bring(tmp_path, graph, without_reference=True)


def test_what_is_not_stated_is_unknown(tmp_path: Path) -> None:
    save_card(tmp_path, data={"name": "films", "images": 12})
    card = bring(tmp_path, Ramp().save(tmp_path / "net.onnx"), without_reference=True)
    assert (card.licence, card.version, card.audit_verdict) == ("unknown", "unknown", "not audited")
    assert (card.data.name, card.data.images, card.data.patients) == ("films", 12, "unknown")
    assert card.data.population == card.data.sha256 == "unknown"
    assert card.operating_points == ()
    assert card.gate is None


def test_a_card_that_does_not_reproduce_the_pair_is_refused_with_the_one_that_does(tmp_path: Path) -> None:
    graph = Ramp()
    there = graph(imagenet(write_image(tmp_path / "a.png")))[0]
    save_card(tmp_path, {"image": "a.png", "outputs": there}, input={"mean": 0.5, "std": 0.5})
    with pytest.raises(BundleRefused) as refused:
        bring(tmp_path, graph.save(tmp_path / "net.onnx"))
    message = str(refused.value)
    assert message.startswith(f"expected outputs [{there[0]:.5g}] for a.png, got [")
    assert "mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225] reproduces them: correct [input]" in message
    assert not (tmp_path / "shelf").exists()


SENT = "where it was made, save model.state_dict() with safetensors or export the model to ONNX"


@pytest.mark.parametrize(
    ("files", "source", "complaint"),
    [
        ({"net.pt": b"x"}, "net.pt", f"got net.pt, which can run code when loaded; {SENT}"),
        ({"hub/pytorch_model.bin": b"x"}, "hub", "got pytorch_model.bin, which can run code"),
        ({"hub/notes.txt": b"x"}, "hub", "expected model.safetensors in hub, got no such file"),
        ({"net.h5": b"x"}, "net.h5", "expected an .onnx or .safetensors file, got net.h5"),
        ({}, "net.onnx", "got no such path: net.onnx"),
        ({"net.onnx": b"no graph"}, "net.onnx", "expected a whole ONNX file in net.onnx, got DecodeError"),
        ({"net.onnx": b""}, "net.onnx", "expected a whole ONNX file in net.onnx, got ValidationError"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, files: dict[str, bytes], source: str, complaint: str) -> None:
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    save_card(tmp_path)
    with pytest.raises(BundleRefused) as refused:
        bring(tmp_path, tmp_path / source, without_reference=True)
    assert complaint in str(refused.value)
    assert not (tmp_path / "shelf").exists()


def test_a_truncated_graph_is_refused(tmp_path: Path) -> None:
    whole = Ramp().save(tmp_path / "net.onnx")
    whole.write_bytes(whole.read_bytes()[:-200])
    save_card(tmp_path)
    with pytest.raises(BundleRefused, match=r"expected a whole ONNX file in net.onnx, got \w+; copy or export it"):
        bring(tmp_path, whole, without_reference=True)


@pytest.mark.parametrize(
    ("graph", "changes", "complaint"),
    [
        (Ramp(outputs=2), {"top": {"task": "multilabel", "classes": ["a", "b", "c"]}}, "3 outputs for a, b, c, got 2"),
        (Ramp(outputs=3), {}, "expected 1 output for finding, got 3 outputs; correct classes in the card"),
        (Ramp(outputs=3), {"output": {"gives": "logits", "columns": [5]}}, r"expected columns from 0 to 2"),
        (
            Ramp(outputs=3),
            {"top": {"task": "multiclass", "classes": ["a", "b"]}, "output": {"gives": "logits", "columns": [0, 1]}},
            "expected all 3 outputs of exclusive classes, got 2",
        ),
        (Ramp(end="Sigmoid"), {}, "gives = 'probabilities' for a graph that ends in Sigmoid, got 'logits'"),
        (Ramp(size=16), {}, "expected an input of 3 x 16 x 16, as the graph takes, got 3 x 32 x 32"),
        (Ramp(channels=1), {}, "expected an input of 1 x 32 x 32, as the graph takes, got 3 x 32 x 32"),
        (Ramp(batch=8), {}, "expected a batch of any size or of 1, got exactly 8"),
    ],
)
def test_a_card_that_does_not_fit_the_graph_is_refused(
    tmp_path: Path, graph: Ramp, changes: dict[str, Any], complaint: str
) -> None:
    save_card(tmp_path, **changes)
    with pytest.raises(BundleRefused) as refused:
        bring(tmp_path, graph.save(tmp_path / "net.onnx"), without_reference=True)
    assert complaint in str(refused.value)


def test_probabilities_outside_0_to_1_are_refused(tmp_path: Path) -> None:
    graph = Ramp()
    x = imagenet(write_image(tmp_path / "a.png", seed=4))
    assert not 0 <= graph(x)[0, 0] <= 1
    gives = {"gives": "probabilities"}
    save_card(tmp_path, {"image": "a.png", "probabilities": [0.5]}, output=gives)
    with pytest.raises(BundleRefused, match=r"expected probabilities within \[0, 1\], got .*; set gives = 'logits'"):
        bring(tmp_path, graph.save(tmp_path / "net.onnx"))
    save_card(tmp_path, output=gives)
    bring(tmp_path, tmp_path / "net.onnx", without_reference=True)
    reader = load_reader(tmp_path / "shelf" / "elsewhere")
    with pytest.raises(WetreadError, match=r"expected probabilities within \[0, 1\]"):
        probabilities(reader, tmp_path / "a.png")


def test_a_name_that_is_taken_and_one_that_is_none(tmp_path: Path) -> None:
    save_card(tmp_path)
    graph = Ramp().save(tmp_path / "net.onnx")
    bring(tmp_path, graph, without_reference=True)
    with pytest.raises(BundleRefused, match=r"expected a new reader name, got elsewhere, which exists; give --name"):
        bring(tmp_path, graph, without_reference=True)
    save_card(tmp_path, top={"name": "chest-pneumonia"})
    with pytest.raises(BundleRefused, match=r"got chest-pneumonia, which exists"):
        bring(tmp_path, graph, without_reference=True)
    save_card(tmp_path)
    with pytest.raises(BundleRefused, match=r"got name: "):
        import_foreign(
            ForeignSource(graph, tmp_path / "card.toml", without_reference=True), tmp_path / "shelf", "../other"
        )


def test_without_a_card_it_says_how_to_write_one(tmp_path: Path) -> None:
    source = ForeignSource(Ramp().save(tmp_path / "net.onnx"), None)
    with pytest.raises(UsageError, match=r"expected a card for net.onnx, got none; .*give it as --card"):
        import_foreign(source, tmp_path / "shelf")


def test_what_is_ours_and_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("{}", encoding="utf-8")
    (tmp_path / "hub").mkdir()
    assert not is_foreign(tmp_path)
    assert not is_foreign(Path("reader.zip"))
    assert is_foreign(tmp_path / "hub")
    assert all(is_foreign(Path(name)) for name in ("a.onnx", "a.safetensors", "a.PT"))
