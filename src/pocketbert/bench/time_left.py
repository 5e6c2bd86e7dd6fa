"""An estimate of the time that a run still takes, from what is planned and from how long such things took so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Work:
    """Things of one kind: how many are left, and how long the finished ones took."""

    pace: float  # seconds, a guess until one is finished
    left: float = 0.0
    done: float = 0.0
    seconds: float = 0.0

    @property
    def each(self) -> float:
        """Seconds that one takes."""
        return self.seconds / self.done if self.done else self.pace


@dataclass
class TimeLeft:
    """Counts down.

    Args:
        pace: seconds that one of each kind takes, a guess that is used until one is finished.
    """

    pace: Mapping[str, float]
    clock: Callable[[], float] = time.monotonic
    works: dict[str, Work] = field(init=False)
    current: tuple[str, float, float] | None = field(init=False, default=None)  # kind, amount, when it began

    def __post_init__(self) -> None:
        self.works = {kind: Work(seconds) for kind, seconds in self.pace.items()}

    def expect(self, **amounts: float) -> None:
        """Say how much of each kind is left."""
        for kind, amount in amounts.items():
            self.works[kind].left = amount

    @contextmanager
    def step(self, kind: str, amount: float = 1.0) -> Iterator[None]:
        """Do that much of a kind."""
        work, begun = self.works[kind], self.clock()
        self.current = kind, amount, begun
        try:
            yield
        finally:
            self.current = None
            work.left = max(0.0, work.left - amount)
            work.done += amount
            work.seconds += self.clock() - begun

    def seconds(self) -> float:
        """The estimate."""
        current = self.current  # another thread may read while this one goes on
        passed = 0.0
        if current is not None:
            kind, amount, begun = current
            passed = min(self.clock() - begun, amount * self.works[kind].each)
        return max(0.0, sum(work.left * work.each for work in self.works.values()) - passed)
