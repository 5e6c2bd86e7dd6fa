"""What callers can do while a model is trained: watch it, and stop it."""

from __future__ import annotations

from collections.abc import Mapping


class Callback:
    """Receives steps and evaluations of a run; a subclass overrides what it needs.

    Whatever returns True ends the run after this step, as its last step would: the model is evaluated, and the best one
    is kept.
    """

    def on_step(self, step: int, values: Mapping[str, float]) -> bool | None:
        """Is called after every step, with its number and the means over its batch: loss, learning rate, and so on."""
        return None

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> bool | None:
        """Is called after every evaluation, with the number of finished steps and the metrics on the dev set."""
        return None
