"""Boxes and heat as objects that lie over the original image: GSPS (PS3.3 A.33.1) and a fractional SEG (A.51).

Decided here: the presentation state repeats the window of the image, so that applying it changes nothing but the
marks; every mark is a polyline with its label, and the warnings stand at the top of the image. The heat map is a
FRACTIONAL segmentation rather than a parametric map, because a radiograph has no frame of reference, which the
latter requires; its values are relative evidence and no probability, and the segment says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from wetread.pacs import facts as f
from wetread.pacs.facts import ResultFacts

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["heat_segmentation", "presentation_state"]

_LAYER = "AI"
_LABEL_CHARACTERS = 64


def presentation_state(facts: ResultFacts, image: Dataset) -> Dataset:
    """Make a Grayscale Softcopy Presentation State with the boxes of every label and the warnings."""
    from highdicom.pr import GrayscaleSoftcopyPresentationState
    from pydicom.uid import ExplicitVRLittleEndian

    state = GrayscaleSoftcopyPresentationState(
        referenced_images=[image],
        series_instance_uid=f.series_uid(facts, image, "gsps"),
        series_number=f.series_number("gsps"),
        sop_instance_uid=f.instance_uid(facts, image, "gsps"),
        instance_number=max(1, int(image.get("InstanceNumber") or 1)),
        content_label="AI_MARKS",
        content_description="Marks by an algorithm, research use only",
        graphic_layers=[_layer()],
        graphic_annotations=[_annotation(facts, image)],
        concept_name=None,
        content_creator_name="wetread",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=f.series_description(facts, "gsps"),
        specific_character_set=None,
        **f.device(),
    )
    f.copy_series_elements(image, state)
    return state


def _layer() -> Any:
    from highdicom.pr import GraphicLayer

    return GraphicLayer(layer_name=_LAYER, order=1, description="Marks by an algorithm, research use only")


def _annotation(facts: ResultFacts, image: Dataset) -> Any:
    from highdicom.pr import GraphicAnnotation, GraphicObject, TextObject

    graphics, texts = [], [_banner(facts)]
    for label in facts.read.labels:
        boxes = label.evidence.boxes if label.evidence is not None else ()
        for number, box in enumerate(boxes, start=1):
            # 1\1 is the centre of the first pixel (C.10.5.1.2); highdicom takes no coordinate beyond the last centre
            left, right = (min(max(at + 0.5, 0.5), float(image.Columns)) for at in (box.x, box.x + box.width))
            top, bottom = (min(max(at + 0.5, 0.5), float(image.Rows)) for at in (box.y, box.y + box.height))
            corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
            uid = f.tracking_uid(facts, image, label.label, number)
            mark = GraphicObject("POLYLINE", np.array(corners), "PIXEL", tracking_id=label.label, tracking_uid=uid)
            graphics.append(mark)
            anchor = (left, top)
            texts.append(TextObject(f.answer_line(label)[:_LABEL_CHARACTERS], "PIXEL", anchor_point=anchor))
    return GraphicAnnotation(
        referenced_images=[image],
        graphic_layer=_layer(),
        graphic_objects=graphics or None,
        text_objects=texts,
    )


def _banner(facts: ResultFacts) -> Any:
    """The warnings in the upper left corner of what is displayed."""
    from highdicom.pr import TextObject

    text = "\r\n".join([*f.warning_lines(facts.read), f.reader_line(facts.read)])
    return TextObject(text, "DISPLAY", bounding_box=(0.0, 0.0, 1.0, 0.1), text_justification="LEFT")


def heat_segmentation(facts: ResultFacts, image: Dataset) -> Dataset:
    """Make a fractional segmentation with one segment for each heat map; ``facts`` has at least one."""
    from highdicom.seg import Segmentation
    from pydicom.uid import ExplicitVRLittleEndian

    size = (int(image.Columns), int(image.Rows))
    maps = {label: _resized(heat, size) for label, heat in facts.heat.items()}
    made = Segmentation(
        source_images=[image],
        pixel_array=np.stack(list(maps.values()), axis=-1)[np.newaxis],
        segmentation_type="FRACTIONAL",
        fractional_type="PROBABILITY",
        max_fractional_value=255,
        segment_descriptions=[_segment(facts, image, n, label) for n, label in enumerate(maps, start=1)],
        series_instance_uid=f.series_uid(facts, image, "heat"),
        series_number=f.series_number("heat"),
        sop_instance_uid=f.instance_uid(facts, image, "heat"),
        instance_number=max(1, int(image.get("InstanceNumber") or 1)),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="HEAT_MAP",
        content_description="Where a reader looked, research use only",
        series_description=f.series_description(facts, "heat"),
        specific_character_set=None,
        **f.device(),
    )
    _complete(made, image)
    return made


def _complete(made: Dataset, image: Dataset) -> None:
    """As for organ masks: what highdicom leaves out, and a stable UID in place of its random one."""
    f.copy_series_elements(image, made)
    if "Laterality" in made:
        del made.Laterality  # dciodvfy refuses it in any SEG
    if "FrameOfReferenceUID" not in made:
        made.PatientOrientation = image.get("PatientOrientation") or ""
    dimensions = f.dimension_uid(str(made.SOPInstanceUID))
    for item in [*made.DimensionOrganizationSequence, *made.DimensionIndexSequence]:
        item.DimensionOrganizationUID = dimensions


def _segment(facts: ResultFacts, image: Dataset, number: int, label: str) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

    model = facts.read.model
    described = SegmentDescription(
        segment_number=number,
        segment_label=f"Heat map: {label}"[:_LABEL_CHARACTERS],
        segmented_property_category=CodedConcept("309825002", "SCT", "Spatial and Relational Concept"),
        segmented_property_type=CodedConcept("111099", "DCM", "Selected region"),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=model.name[:_LABEL_CHARACTERS],
            version=model.version[:_LABEL_CHARACTERS],
            family=CodedConcept("123110", "DCM", "Artificial Intelligence"),
        ),
        tracking_uid=f.tracking_uid(facts, image, "heat", label),
        tracking_id=f"Heat map: {label}"[:_LABEL_CHARACTERS],
    )
    words = ["Relative evidence, no probability", *f.warning_lines(facts.read), f.reader_line(facts.read)]
    described.SegmentDescription = "; ".join(words)
    return described


def _resized(heat: Any, size: tuple[int, int]) -> Any:
    whole = Image.fromarray(np.clip(heat, 0, 1).astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(whole, dtype=np.float32), 0, 1)
