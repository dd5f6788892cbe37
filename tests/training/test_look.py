"""The look that a training run puts into the gate."""

from __future__ import annotations

import numpy as np

from wetread.datasets.manifest import Manifest
from wetread.imaging import load_image
from wetread.models.look import layout, likeness
from wetread.training.look import learn_look
from wetread.training.parts import split_pair


def test_validation_films_pass_and_their_negatives_do_not(binary: Manifest) -> None:
    learned, judged = split_pair(binary.table)
    look = learn_look(binary, learned, judged, seed=0)
    films = [load_image(binary.path_of(str(path))).pixels for path in judged["path"]]
    assert all(likeness(look, film) >= look.least for film in films)
    assert all(likeness(look, 1 - film) < look.least for film in films)


def test_whole_films_are_averaged_whatever_the_seed_when_all_are_used(binary: Manifest) -> None:
    learned, judged = split_pair(binary.table)
    looks = [learn_look(binary, learned, judged, seed) for seed in (0, 1)]
    assert looks[0] == looks[1]
    mean = np.mean([layout(load_image(binary.path_of(str(path))).pixels) for path in learned["path"]], axis=0)
    greys = np.frombuffer(bytes.fromhex(looks[0].layout), dtype=np.int8)
    np.testing.assert_allclose(greys / 127, mean / np.abs(mean).max(), atol=0.005)
