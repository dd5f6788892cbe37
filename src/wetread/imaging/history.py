"""What happened to one image while it was read: steps, warnings, ambiguities."""

from __future__ import annotations

from typing import Any

from wetread.types import Step

__all__ = ["History"]


class History:
    """Notes that the stages of one reading add to, in order.

    An *ambiguity* is a contradiction in the file that wetread settled one way while another
    reader might settle it another way; it is a warning too, marked as such. No patient data.
    """

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._warnings: list[str] = []
        self._ambiguities: list[str] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        """What was done to the pixels, in order."""
        return tuple(self._steps)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything worth saying, ambiguities last and marked ``ambiguous:``."""
        return (*self._warnings, *(f"ambiguous: {text}" for text in self._ambiguities))

    @property
    def notes(self) -> tuple[str, ...]:
        """The warnings that are no ambiguities."""
        return tuple(self._warnings)

    @property
    def ambiguities(self) -> tuple[str, ...]:
        """Contradictions in the file."""
        return tuple(self._ambiguities)

    def step(self, name: str, /, **detail: Any) -> None:
        """Record one thing that was done to the pixels; ``detail`` must be plain JSON values."""
        self._steps.append(Step(name=name, detail=detail))

    def warn(self, text: str) -> None:
        """Record something the reader of the result should know."""
        if text not in self._warnings:
            self._warnings.append(text)

    def ambiguous(self, text: str) -> None:
        """Record a contradiction and how it was settled."""
        if text not in self._ambiguities:
            self._ambiguities.append(text)
