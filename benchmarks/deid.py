"""What is left of made-up patients after ``wetread deid``: in headers, hidden bytes and pixels of every odd kind.

Files of CR, CT, MR, US and SC hold the patient in every corner (:mod:`benchmarks.deid_files`), text in the pixels too.
What is left is counted by a search of raw bytes, of all elements, of pixels by OCR with its own settings, and of the
very pixels of the letters; none of it shares code with the product. A child process with the same key derives UIDs and
dates anew. The flaw: printed fonts on smooth grounds; the strings are the patient's own, as the header has them.
"""

from __future__ import annotations

import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from benchmarks.common import Figure, arguments, write_figures
from benchmarks.deid_files import KINDS, MODALITIES, Planted, draw, plant
from wetread.datasets.phantoms import render, sample_spec
from wetread.deid.batch import open_run
from wetread.deid.key import Key
from wetread.deid.options import Options
from wetread.deid.process import Setup, parse
from wetread.deid.text import find_text
from wetread.imaging.header import quiet

HEIGHTS_PX = (4, 5, 6, 8, 10, 14, 40)
CONTRASTS = (0.02, 0.04, 0.08, 0.15)
_HEIGHT_PX, _CONTRAST = 14, 0.4


@dataclass
class Tally:
    """What was counted; the lists name kinds of files, never a string."""

    files: int = 0
    strings: int = 0
    in_bytes: list[str] = field(default_factory=list)
    in_elements: list[str] = field(default_factory=list)
    read_by_ocr: list[str] = field(default_factory=list)
    ink: list[str] = field(default_factory=list)
    texts: int = 0
    quarantined: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    parser = arguments(__doc__, "results/deid.csv")
    parser.add_argument("--each", type=int, default=42, help="files of each modality (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=4, help="texts for each height, contrast and turn")
    parser.add_argument("--films", type=Path, help="folder of real films, to count what is blacked out without need")
    asked = parser.parse_args()
    figures = [*measure(asked.each), keeping_more(), *limits(asked.repeats), *needless(asked.films)]
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:75} {figure.value:10.4f} {figure.unit} {figure.bar} {figure.met}")


def measure(each: int, modalities: Sequence[str] = tuple(MODALITIES), size_px: int = 320) -> list[Figure]:
    """Plant, de-identify, search; then once more in a child process."""
    secret = secrets.token_bytes(32)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tally, written = _first_run(folder, secret, [(m, n) for n in range(each) for m in modalities], size_px)
        again = _second_run(folder, secret)
        relations = _relations(folder, written, again)
    return [*_left(tally), *relations]


def keeping_more(files: int = 24) -> Figure:
    """Strings left where every option that keeps more is on; slices without text, so that no OCR is needed."""
    options = Options(retain_device=True, retain_patient_characteristics=True, clean_descriptors=True)
    numbers = [number for number in range(8 * files) if KINDS["CT"][number % 8] == "says NO"][:files]
    tally = Tally()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with open_run(Setup(Key(secrets.token_bytes(32)), options), folder / "out") as run:
            for number in numbers:
                planted = plant("CT", number, 64)
                (folder / "in.dcm").write_bytes(planted.data)
                result = run.take(folder / "in.dcm")
                if result.output is None:
                    tally.quarantined.append(result.reason)
                    continue
                _search(planted, folder / "out" / result.output, Path(result.output), "CT", tally)
    left = len(tally.in_bytes) + len(tally.in_elements)
    how = f"{tally.files} slices written, {len(tally.quarantined)} quarantined; devices, patient, descriptions kept"
    return Figure("strings left with the options that keep more", left, "strings", how, tally.strings, bar="<= 0")


def _first_run(
    folder: Path, secret: bytes, wanted: list[tuple[str, int]], size_px: int
) -> tuple[Tally, dict[str, Path]]:
    """De-identify every file by the product's own run; return the counts and source name -> written file."""
    (folder / "in").mkdir()
    tally, written = Tally(), {}
    with open_run(Setup(Key(secret)), folder / "out") as run:
        for modality, number in wanted:
            planted = plant(modality, number, size_px)
            name = f"{modality}-{number}"
            path = folder / "in" / f"{planted.strings[0]} {name}.dcm"
            path.write_bytes(planted.data)
            begin = time.process_time()
            result = run.take(path)
            tally.seconds.append(time.process_time() - begin)
            if result.output is None:
                tally.quarantined.append(f"{modality} {planted.kind}: {result.reason}")
                continue
            written[path.name] = folder / "out" / result.output
            _search(planted, folder / "out" / result.output, Path(result.output), f"{modality} {planted.kind}", tally)
    return tally, written


def _search(planted: Planted, path: Path, place: Path, kind: str, tally: Tally) -> None:
    """Look for every planted string in one written file."""
    tally.files += 1
    tally.strings += len(planted.strings)
    raw = path.read_bytes().lower()
    wanted = [text.lower() for text in planted.strings]
    for text in wanted:
        forms = (text.encode(), text.encode("utf-16-le"), text.encode("latin-1", "ignore"))
        if any(len(form) > 3 and form in raw for form in forms) or text in place.as_posix().lower():
            tally.in_bytes.append(kind)
    with quiet():
        data = dcmread(path)
        values = [str(element.value).lower() for element in _elements(data) if element.keyword != "PixelData"]
        tally.in_elements += [kind for text in wanted if any(text in value for value in values)]
        frames = data.pixel_array
    read = " ".join(_read(frame) for frame in _pictures(frames, data))
    tally.read_by_ocr += [kind for text in wanted if _plain(text) and _plain(text) in _plain(read)]
    if planted.ink is not None:
        tally.texts += 1
        if _ink_left(frames, data, planted.ink) > 0.02:
            tally.ink.append(kind)


def _elements(data: Dataset) -> Iterator[Any]:
    for element in (*data.file_meta, *data) if hasattr(data, "file_meta") else data:
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def _pictures(frames: NDArray[Any], data: Dataset) -> Iterator[NDArray[np.uint8]]:
    single = int(data.get("NumberOfFrames") or 1) == 1
    for frame in [frames] if single else list(frames):
        grey = frame.astype(np.float32)
        span = float(grey.max() - grey.min()) or 1.0
        scaled = ((grey - grey.min()) * (255 / span)).astype(np.uint8)
        yield scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)


_reader: list[Any] = []


def _read(picture: NDArray[np.uint8]) -> str:
    """The words of a picture, by OCR with its own settings: nothing is filtered, upside down text is turned."""
    if not _reader:
        from rapidocr import RapidOCR

        one = {f"EngineConfig.onnxruntime.{name}_op_num_threads": 1 for name in ("intra", "inter")}
        _reader.append(RapidOCR(params={"Global.log_level": "critical", "Global.text_score": 0.0, **one}))
    found = getattr(_reader[0](picture), "txts", None)
    return " ".join(found or ())


def _plain(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _ink_left(frames: NDArray[Any], data: Dataset, ink: NDArray[np.bool_]) -> float:
    """Share of the letters' edges that still stand out from their surroundings in some frame."""
    stack = frames if int(data.get("NumberOfFrames") or 1) > 1 else frames[None]
    inner = ink[1:-1, 1:-1]
    around = np.stack([ink[1 + y : ink.shape[0] - 1 + y, 1 + x : ink.shape[1] - 1 + x] for y, x in _NEAR])
    edge = inner & ~around.all(axis=0)
    most = 0.0
    for frame in stack:
        values = frame if frame.ndim == 3 else frame[..., None]
        rows, columns = values.shape[:2]
        shifted = np.stack([values[1 + y : rows - 1 + y, 1 + x : columns - 1 + x] for y, x in ((0, 0), *_NEAR)])
        stands = (shifted.max(axis=0) != shifted.min(axis=0)).any(axis=-1)
        # the rim of a blacked out box touches ground, not letters: a letter that is left stands out on all its edge
        most = max(most, float(stands[edge].mean()))
    return most


_NEAR = ((-1, 0), (1, 0), (0, -1), (0, 1))


def _second_run(folder: Path, secret: bytes) -> dict[str, dict[str, list[str]]]:
    """UIDs, dates and pseudonyms of all files, derived in a child process, last file first."""
    (folder / "key").write_text(secret.hex())
    command = [sys.executable, "-m", "benchmarks.deid", "--derive", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    found: dict[str, dict[str, list[str]]] = json.loads(done.stdout)
    return found


def derive(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Source name -> UIDs, dates and pseudonym after the header was cleaned; the work of the child process."""
    from wetread.deid.header import HeaderWork, clean_header, patient_of
    from wetread.deid.identity import identity_of

    setup = Setup(Key(bytes.fromhex((folder / "key").read_text())))
    found = {}
    for path in sorted((folder / "in").iterdir(), reverse=True):
        data, _ = parse(path.read_bytes(), setup.budget_bytes)
        clean_header(data, HeaderWork(setup.key, setup.options, identity_of(data), patient_of(data)))
        found[path.name] = facts(data)
    return found


def facts(data: Dataset) -> dict[str, list[str]]:
    """What must not depend on the run."""
    of_kind: dict[str, list[str]] = defaultdict(list)
    for element in _elements(data):
        if element.tag.group > 2 and element.VR in ("UI", "DA", "DT") and element.value:
            of_kind[element.VR].append(str(element.value))
    return {**of_kind, "patient": [str(data.PatientID), str(data.PatientName)]}


def _relations(folder: Path, written: dict[str, Path], again: dict[str, dict[str, list[str]]]) -> list[Figure]:
    """Whether two runs agree, patients keep one pseudonym, references lead somewhere, and days keep their distance."""
    with quiet():
        sources = {name: dcmread(folder / "in" / name, stop_before_pixels=True) for name in written}
        results = {name: dcmread(path, stop_before_pixels=True) for name, path in written.items()}
    first = {name: facts(data) for name, data in results.items()}
    differing = {
        kind: sum(first[n].get(kind) != again[n].get(kind) for n in first) for kind in ("UI", "DA", "DT", "patient")
    }
    pseudonyms: dict[str, set[Any]] = defaultdict(set)
    uids: dict[str, set[Any]] = defaultdict(set)
    shifts: dict[str, set[Any]] = defaultdict(set)
    for name, source in sources.items():
        result = results[name]
        pseudonyms[str(source.PatientID)].add(str(result.PatientID))
        shifts[str(source.PatientID)].add(_days(result.StudyDate) - _days(source.StudyDate))
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
            uids[str(source[keyword].value)].add(str(result[keyword].value))
        before, after = (data.ReferencedImageSequence[0].ReferencedSOPInstanceUID for data in (source, result))
        uids[str(before)].add(str(after))
    protocol = "this run and a child process with the same key, files in reverse order, headers alone"

    def none(what: str, value: int, unit: str, n: int) -> Figure:
        return Figure(what, value, unit, protocol, n, bar="<= 0")

    words = {"UI": "UIDs", "DA": "dates", "DT": "times", "patient": "pseudonyms"}
    shared = len(uids) - len({uid for found in uids.values() for uid in found})
    return [
        *(none(f"files whose {words[k]} differ between two runs", differing[k], "files", len(first)) for k in words),
        none("patients with several pseudonyms", _several(pseudonyms), "patients", len(pseudonyms)),
        none("patients with several shifts of dates", _several(shifts), "patients", len(shifts)),
        none("UIDs that became several, references included", _several(uids), "UIDs", len(uids)),
        none("UIDs that two originals share", shared, "UIDs", len(uids)),
    ]


def _several(found: Mapping[str, set[Any]]) -> int:
    return sum(len(values) > 1 for values in found.values())


def _days(text: str) -> int:
    from datetime import date

    return date(int(text[:4]), int(text[4:6]), int(text[6:8])).toordinal()


def _left(tally: Tally) -> list[Figure]:
    kinds = f"{tally.files} written files of CR, CT, MR, US and SC; planted in {', '.join(PLACES)} and pixels"

    def figure(what: str, found: list[str], n: int, how: str) -> Figure:
        named = f"; found in: {', '.join(sorted(set(found)))}" if found else ""
        return Figure(what, len(found), "strings", f"{kinds}; {how}{named}", n, bar="<= 0")

    why = "; ".join(sorted(set(tally.quarantined))) or "none"
    where = "; in " + ", ".join(sorted(set(tally.ink))) if tally.ink else ""
    ink = f"{kinds}; more than 2 % of the letters' edges still stand out{where}"
    spent = tally.seconds
    rounds = "one thread, two or more rounds of OCR"
    return [
        figure("strings left in bytes and names of files", tally.in_bytes, tally.strings, "UTF-8, UTF-16, Latin-1"),
        figure("strings left in elements", tally.in_elements, tally.strings, "every element of every sequence"),
        figure(
            "strings read in pixels", tally.read_by_ocr, tally.strings, "rapidocr with its own settings, all frames"
        ),
        Figure("burned-in texts with letters left", len(tally.ink), "texts", ink, tally.texts, bar="<= 0"),
        Figure("files written", tally.files, "files", kinds, tally.files, bar=">= 200"),
        Figure("files quarantined", len(tally.quarantined), "files", f"of those planted; {why}", len(spent)),
        Figure("processor time of a file", statistics.median(spent), "s", rounds, len(spent), min(spent), max(spent)),
    ]


PLACES = (
    "patient",
    "study",
    "sequences",
    "private",
    "overlay",
    "curve",
    "padding",
    "preamble",
    "file meta",
    "file name",
)


def limits(repeats: int) -> list[Figure]:
    """How small, how faint and how turned a text may be and still be found."""
    protocol = (
        "one line of 14 letters and digits, four fonts, on a chest phantom of 1024 x 1024 pixels; counts as found if "
        "more than 80 % of its letters are covered"
    )
    rng = np.random.default_rng(5)
    grounds = [render(sample_spec(rng, size_px=1024)).image for _ in range(repeats)]
    usual = Text()
    cases = {f"letters {height} px high": replace(usual, height=height) for height in HEIGHTS_PX}
    cases |= {f"{contrast:.0%} of the range brighter": replace(usual, contrast=contrast) for contrast in CONTRASTS}
    cases |= {f"turned by {90 * turns} degrees": replace(usual, turns=turns) for turns in (1, 2, 3)}
    cases["black letters"] = replace(usual, contrast=-_CONTRAST)
    figures = []
    for number, (what, text) in enumerate(cases.items()):
        seeds = [np.random.default_rng([7, number, i]) for i in range(repeats)]
        found = [_is_found(text, ground, seed) for ground, seed in zip(grounds, seeds, strict=True)]
        figures.append(Figure(f"texts blacked out: {what}", statistics.mean(found), "share", protocol, repeats))
    return figures


@dataclass(frozen=True)
class Text:
    """One line: letters ``height`` pixels high, ``contrast`` of the range brighter, and quarter ``turns``."""

    height: int = _HEIGHT_PX
    contrast: float = _CONTRAST
    turns: int = 0


def _is_found(asked: Text, ground: NDArray[np.float32], rng: np.random.Generator) -> float:
    shape = (ground.shape[0], ground.shape[1])
    words = "".join(rng.choice(list("BCDEFGHKMNPRSTVXYZ23456789"), 14))
    font = str(rng.choice(["DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "DejaVuSans-Bold"]))
    place = (int(rng.integers(5, shape[1] - 16 * asked.height)), int(rng.integers(5, shape[0] - 3 * asked.height)))
    cover = np.rot90(draw(shape, [words], place, asked.height, font), asked.turns)
    shown = np.clip(ground + asked.contrast * cover, 0, 1)
    hidden = np.zeros(shape, bool)
    for box in find_text(np.round(4095 * shown).astype(np.uint16)):
        hidden[box.top : box.bottom, box.left : box.right] = True
    return float(hidden[cover > 0.5].mean() > 0.8)


def needless(films: Path | None, most: int = 24) -> list[Figure]:
    """What is blacked out where there is no text: on phantoms, and on the real DICOM files of a folder without any."""
    rng = np.random.default_rng(3)
    phantoms = [np.round(4095 * render(sample_spec(rng, size_px=384)).image).astype(np.uint16) for _ in range(most)]
    found = [_covered(film) for film in phantoms]
    protocol = "no text but a mark of side; share of the pixels that would be blacked out"
    kinds = {"chest phantoms": found}
    if films is not None and films.is_dir():
        paths = sorted(path for path in films.rglob("*") if path.is_file())
        with quiet():
            kinds["real MR slices"] = [
                _covered(dcmread(path).pixel_array) for path in paths[:: max(1, len(paths) // most)][:most]
            ]
    return [
        Figure(f"needless black, {kind}", statistics.mean(x), "share", protocol, len(x), min(x), max(x))
        for kind, x in kinds.items()
    ]


def _covered(film: NDArray[Any]) -> float:
    hidden = np.zeros(film.shape[:2], bool)
    for box in find_text(film):
        hidden[box.top : box.bottom, box.left : box.right] = True
    return float(hidden.mean())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--derive"]:
        print(json.dumps(derive(Path(sys.argv[2]))))
    else:
        main()
