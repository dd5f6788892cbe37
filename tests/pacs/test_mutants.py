"""A short run of the campaign of damaged files: one typed error or an image, no hang, no worker lost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.mutants import HANG_S, MOST_BYTES, Door, Tally, campaign, mutant, seed_files


def gathered(numbers: range, door: Door | None = None) -> Tally:
    tally = Tally()
    for _, block in campaign(numbers, door=door):
        tally.add(block)
    return tally


def test_damaged_files_give_an_image_or_one_of_our_errors() -> None:
    """Catching what pydicom documents (InvalidDicomError) would leave 19 % of such files as uncaught exceptions."""
    tally = gathered(range(1_000_000, 1_000_300))
    assert tally.mutants == 300
    assert (tally.foreign, tally.hangs, tally.deaths) == ([], [], [])
    assert tally.slowest_s <= HANG_S
    assert tally.outcomes["image"] > 20  # not everything is refused
    assert tally.outcomes["ImageRefused"] > 20
    assert tally.peak_bytes <= MOST_BYTES


def test_a_mutant_is_known_by_its_number_and_differs_from_its_seed() -> None:
    seeds = [path.read_bytes() for path in seed_files()]
    assert len(seeds) > 100
    made = [mutant(number, seeds) for number in range(40)]
    assert made == [mutant(number, seeds) for number in range(40)]
    assert sum(made[number] != seeds[number % len(seeds)] for number in range(40)) > 35


def _opened(path: Path) -> tuple[str, bool]:
    """In place of the importer: what a hang, a crash and a foreign error look like to the supervisor."""
    size = path.stat().st_size
    if size % 7 == 1:
        while True:
            pass
    if size % 7 == 2:
        os._exit(3)
    return ("KeyError", False) if size % 7 == 3 else ("image", True)


def _made(number: int, _: Sequence[bytes]) -> bytes:
    return bytes((8, 9, 10, 14)[number])  # one of each, and a good one


def test_the_campaign_sees_hangs_deaths_and_foreign_errors() -> None:
    tally = gathered(range(4), Door(_made, _opened, 0.5))
    assert (tally.hangs, tally.deaths, tally.foreign) == ([0], [1], ["2: KeyError"])
    assert tally.mutants == 4
    assert tally.outcomes == {"KeyError": 1, "image": 1}
