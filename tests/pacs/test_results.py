"""Result objects: valid to independent validators, in the study of the image, true to the read, stable."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.pacs import results_support as support
from tests.pacs.node_support import dcmtk, film
from wetread.errors import UsageError
from wetread.pacs.facts import ResultFacts
from wetread.pacs.outbox import Result
from wetread.pacs.pictures import page_pdf, picture
from wetread.pacs.results import RESULT_KINDS, build_results
from wetread.types import Read

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# without its limits lifted, XPath gives up with JAXP0801003; the other two switches halve the time
PIXELMED_WORDS = [
    "java",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    *(f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprOp", "TotalOp", "ExprGrp")),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("film") / "film.dcm")


@pytest.fixture(scope="module")
def made(source: Path) -> dict[str, Result]:
    return {result.kind: result for result in build_results(source, support.facts(), RESULT_KINDS)}


def data_of(result: Result) -> Dataset:
    return pydicom.dcmread(io.BytesIO(result.data))


def items(data: Dataset) -> Iterator[Dataset]:
    """All content items of an SR, depth first."""
    yield data
    for item in data.get("ContentSequence", []):
        yield from items(item)


def named(data: Dataset, code: str) -> list[Dataset]:
    return [
        item
        for item in items(data)
        if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == code
    ]


def errors_of(result: Result, folder: Path) -> list[str]:
    """What dciodvfy calls an error."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    path = folder / f"{result.kind}.dcm"
    path.write_bytes(result.data)
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=120, check=False)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("kind", RESULT_KINDS)
def test_dciodvfy_finds_no_error(made: dict[str, Result], tmp_path: Path, kind: str) -> None:
    assert errors_of(made[kind], tmp_path) == []


@pytest.mark.parametrize("one", [support.refused, support.abstained, support.negative])
def test_a_report_without_a_finding_is_valid_too(source: Path, tmp_path: Path, one: Callable[[], Read]) -> None:
    results = build_results(source, support.facts(one(), heat=False), ["sr", "heat", "gsps", "sc", "pdf"])
    assert [result.kind for result in results] == ["sr", "gsps", "sc", "pdf"]  # no heat, no heat map
    assert [error for result in results for error in errors_of(result, tmp_path)] == []


def test_every_object_lies_in_the_study_of_the_image_in_a_series_of_its_own(
    source: Path, made: dict[str, Result]
) -> None:
    image = pydicom.dcmread(source)
    series = {image.SeriesInstanceUID}
    for kind in RESULT_KINDS:
        data = data_of(made[kind])
        for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "AccessionNumber"):
            assert data[keyword].value == image[keyword].value, (kind, keyword)
        assert (data.SOPClassUID, data.SOPInstanceUID) == (made[kind].sop_class, made[kind].sop_instance)
        assert data.SeriesInstanceUID not in series
        series.add(data.SeriesInstanceUID)


def test_the_same_answer_makes_the_same_uids_and_another_answer_other_ones(
    source: Path, made: dict[str, Result]
) -> None:
    slower = support.read(timings_ms={"load": 99.0})
    again = {one.kind: one.sop_instance for one in build_results(source, support.facts(slower), RESULT_KINDS)}
    assert again == {kind: one.sop_instance for kind, one in made.items()}
    kinds = ("sr", "gsps", "sc", "pdf", "heat")
    for other in (support.negative(), support.read(model=support.FAILED)):
        changed = {one.kind: one.sop_instance for one in build_results(source, support.facts(other), kinds)}
        assert not set(changed.values()) & set(again.values())


def test_the_report_says_what_the_read_says(made: dict[str, Result]) -> None:
    report = data_of(made["sr"])
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    certainty = [item.MeasuredValueSequence[0] for item in named(report, "111012")]
    assert [float(value.NumericValue) for value in certainty] == [87.31, 10.0]
    assert {value.MeasurementUnitsCodeSequence[0].CodeValue for value in certainty} == {"%"}
    decisions = [item.ConceptCodeSequence[0].CodeMeaning for item in named(report, "decision")]
    assert decisions == ["Present", "Absent"]
    findings = [item.ConceptCodeSequence[0].CodeValue for item in named(report, "121071")]
    assert findings == ["233604007", "233604007", "233604007", "Something quite", "80891009"]
    parameters = {item.TextValue for item in named(report, "111002")}
    assert {"sha256=" + "ab" * 32, "audit=PASS", "operating point youden, positive from 0.420000"} <= parameters
    assert any("RESEARCH USE ONLY" in item.TextValue for item in named(report, "121106"))


def test_boxes_lie_where_the_read_put_them_and_sizes_have_their_units(made: dict[str, Result]) -> None:
    report = data_of(made["sr"])
    regions = [item.GraphicData for item in items(report) if item.get("ValueType") == "SCOORD"]
    assert [list(map(float, region)) for region in regions] == [
        [10, 12, 30, 12, 30, 28, 10, 28, 10, 12],
        [0, 0, 64, 0, 64, 64, 0, 64, 0, 0],
    ]
    sizes = {
        item.ConceptNameCodeSequence[0].CodeMeaning: (
            float(item.MeasuredValueSequence[0].NumericValue),
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item in items(report)
        if item.get("ValueType") == "NUM"
    }
    assert sizes["area"] == (123.4, "cm2")
    assert sizes["cardiothoracic_ratio"] == (0.51, "1")


def test_a_refused_image_is_reported_as_not_applicable_without_a_probability(source: Path) -> None:
    (report,) = (data_of(one) for one in build_results(source, support.facts(support.refused()), ["sr"]))
    assert named(report, "111012") == []
    assert [item.ConceptCodeSequence[0].CodeMeaning for item in named(report, "decision")] == ["Indeterminate"]
    comments = [item.TextValue for item in named(report, "121106")]
    assert "Not applicable: Not a chest radiograph." in comments


def test_a_failed_audit_is_written_on_every_object(source: Path) -> None:
    results = build_results(source, support.facts(support.read(model=support.FAILED)), ["sr", "heat", "gsps", "sc"])
    for result in results:
        data = data_of(result)
        assert data.SeriesDescription.startswith("AUDIT FAIL")
        assert b"AUDIT FAIL: do not trust this reader" in result.data
        assert b"abababababab" in result.data
    failed, good = (picture(support.facts(support.read(model=model))) for model in (support.FAILED, support.MODEL))
    assert tuple(failed[0, 0]) == (140, 16, 36)  # the red band, burned in
    assert tuple(good[0, 0]) == (24, 24, 24)


def test_the_heat_map_has_the_size_of_the_image_and_its_values(made: dict[str, Result]) -> None:
    heat = data_of(made["heat"])
    pixels = heat.pixel_array.reshape(64, 64) / 255
    assert heat.SegmentationType == "FRACTIONAL"
    assert np.all(np.diff(pixels[32]) >= 0)
    assert pixels[32, 0] == 0
    assert pixels[32, 63] == 1
    assert abs(pixels[32, 32] - 32.5 / 64) < 0.03
    assert "no probability" in heat.SegmentSequence[0].SegmentDescription


def test_the_marks_are_the_boxes_and_the_window_is_that_of_the_image(made: dict[str, Result]) -> None:
    state = data_of(made["gsps"])
    (annotation,) = state.GraphicAnnotationSequence
    assert [list(map(float, one.GraphicData))[:4] for one in annotation.GraphicObjectSequence] == [
        [10.5, 12.5, 30.5, 12.5],
        [0.5, 0.5, 64, 0.5],
    ]
    assert float(state.SoftcopyVOILUTSequence[0].WindowCenter) == 2048
    assert "RESEARCH USE ONLY" in annotation.TextObjectSequence[0].UnformattedTextValue


def test_pictures_show_no_name_and_the_page_is_the_same_each_time(made: dict[str, Result]) -> None:
    pdf = data_of(made["pdf"])
    document = pdf.EncapsulatedDocument[: pdf.EncapsulatedDocumentLength]
    assert document.startswith(b"%PDF-")
    assert document.rstrip().endswith(b"%%EOF")
    assert b"CANARY" not in document
    assert page_pdf(support.facts()) == page_pdf(support.facts())
    shot = data_of(made["sc"])
    assert shot.pixel_array.shape == picture(support.facts()).shape
    assert np.array_equal(shot.pixel_array, picture(support.facts()))


def test_dcmtk_opens_report_and_page(made: dict[str, Result], tmp_path: Path) -> None:
    for kind in ("sr", "pdf"):
        (tmp_path / f"{kind}.dcm").write_bytes(made[kind].data)
    html = dcmtk("dsr2html", tmp_path / "sr.dcm", tmp_path / "sr.html")
    assert html.returncode == 0, html.stderr
    assert "87.31 %" in (tmp_path / "sr.html").read_text(encoding="latin-1")
    tree = dcmtk("dsrdump", tmp_path / "sr.dcm")
    assert 'NUM:(,,"Certainty of Finding")="87.31" (%,UCUM,"Percent")' in tree.stdout
    assert dcmtk("dcm2pdf", tmp_path / "pdf.dcm", tmp_path / "out.pdf").returncode == 0


def test_pixelmed_finds_the_report_true_to_its_template(made: dict[str, Result], tmp_path: Path) -> None:
    """PixelMed's validator checks the tree against TID 1500; IHE asks for no error, and allows warnings."""
    if not PIXELMED.exists() or shutil.which("java") is None:
        pytest.skip("PixelMed is not installed (Debian: apt-get install libpixelmed-java default-jre-headless)")
    (tmp_path / "sr.dcm").write_bytes(made["sr"].data)
    words = [*PIXELMED_WORDS, "-cp", str(PIXELMED), "com.pixelmed.validate.DicomSRValidator", str(tmp_path / "sr.dcm")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line]
    assert [line for line in said if not line.startswith("Warning")] == [
        "Found Comprehensive3DSR IOD",
        "Found Root Template TID_1500 (MeasurementReport)",
        "Root Template Validation Complete",
        "IOD validation complete",
    ]
    assert all(line.endswith("Content Item not in template") for line in said if line.startswith("Warning"))


def test_dcmtk_checks_the_marks_and_draws_with_them(source: Path, made: dict[str, Result], tmp_path: Path) -> None:
    state = tmp_path / "gsps.dcm"
    state.write_bytes(made["gsps"].data)
    checked = dcmtk("dcmpschk", state)
    assert "Test passed" in checked.stderr + checked.stdout
    drawn = dcmtk("dcmp2pgm", "-p", state, source, tmp_path / "out.pgm")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "out.pgm").read_bytes().startswith(b"P5")


@pytest.mark.parametrize("kind", ["seg", "heat", "sc"])
def test_dcmtk_reads_every_element_of_the_images(made: dict[str, Result], tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.dcm"
    path.write_bytes(made[kind].data)
    dumped = dcmtk("dcmdump", path)
    assert dumped.returncode == 0
    assert "E:" not in dumped.stderr


def test_a_picture_without_a_film_is_refused_and_a_report_without_one_is_the_same(source: Path) -> None:
    bare = ResultFacts(read=support.read(), segmenter=support.MODEL, masks=support.facts().masks)
    with pytest.raises(UsageError, match="expected a film for the object 'sc', got none; read with pictures"):
        build_results(source, bare, ["sr", "sc"])
    kinds = ("sr", "seg", "gsps")
    plain = {one.kind: one.sop_instance for one in build_results(source, bare, kinds)}
    assert plain == {one.kind: one.sop_instance for one in build_results(source, support.facts(), kinds)}


def test_masks_are_named_after_the_segmenter_that_drew_them(source: Path) -> None:
    other = support.MODEL.model_copy(update={"name": "lungs", "version": "7"})
    facts = ResultFacts(read=support.read(), segmenter=other, masks=support.facts().masks)
    (seg,) = build_results(source, facts, ["seg"])
    assert data_of(seg).SegmentSequence[0].SegmentAlgorithmName == "lungs"


def test_an_unknown_kind_is_named(source: Path) -> None:
    facts: ResultFacts = support.facts()
    with pytest.raises(UsageError, match="expected results among sr, seg, heat, gsps, sc, pdf, got 'jpeg'"):
        build_results(source, facts, ["jpeg"])
