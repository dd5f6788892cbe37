"""Facts for the page of a film whose heart and lungs were measured, beside the classifier's answer."""

from __future__ import annotations

import numpy as np

from tests.reporting.examples import HOSTILE, answer, image_facts, png, read, study
from wetread.datasets.phantoms import Finding as PlantedFinding
from wetread.datasets.phantoms import PhantomSpec, render
from wetread.reading.agreement import agreement_on
from wetread.reading.guided import Sizes
from wetread.reading.measures import measure_organs
from wetread.reporting.facts import ReadWithPictures, StudyReport


def measured(probability: float = 0.91, *, severity: float | None = 0.3, view: str | None = "PA") -> ReadWithPictures:
    """A film whose organs were measured; without ``severity`` the heart is of usual size."""
    findings = () if severity is None else (PlantedFinding("cardiomegaly", severity),)
    phantom = render(PhantomSpec(seed=5, findings=findings))
    labels = (answer("cardiomegaly", probability),)
    facts = image_facts("IM0007.dcm", view=view, age_years=63.0)
    masks = {"lungs": phantom.lung_left | phantom.lung_right, "heart": phantom.heart}
    measures = measure_organs(masks, facts.spacing_mm, view=view)
    compared = agreement_on(labels, measures, facts)
    warnings = Sizes(measures, compared).warnings
    made = read("IM0007.dcm", labels).model_copy(
        update={"image": facts, "measures": measures, "agreement": compared, "warnings": warnings}
    )
    return ReadWithPictures(read=made, film_png=png(np.rint(phantom.image * 255).astype(np.uint8)))


def compared_study(*reads: ReadWithPictures) -> StudyReport:
    return study().model_copy(update={"reads": reads or (measured(),)})


def hostile_study() -> StudyReport:
    one = measured()
    compared = one.read.agreement
    assert compared is not None
    words = {"measure": HOSTILE, "source": HOSTILE, "sentence": HOSTILE, "cautions": (HOSTILE,)}
    measures = tuple(
        x.model_copy(
            update={
                "name": HOSTILE,
                "organ": HOSTILE,
                "spans": tuple(s.model_copy(update={"of": HOSTILE}) for s in x.spans),
            }
        )
        for x in one.read.measures[-1:]
    )
    bad = one.read.model_copy(update={"measures": measures, "agreement": compared.model_copy(update=words)})
    return compared_study(one.model_copy(update={"read": bad}))
