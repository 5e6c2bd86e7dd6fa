"""Plots as SVG inside of a page, in the colours of its style sheet, so that they are dark where the page is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 12, 10, 42
_TICKS = 5

Points = Sequence[tuple[float, float]]


class Plot:
    """Two axes with lines and dots.

    Args:
        title: what the plot shows, for those who cannot see it.
        x: title of the horizontal axis.
        y: title of the vertical axis.
        across: limits of the horizontal axis.
        up: limits of the vertical axis.
    """

    def __init__(self, title: str, x: str, y: str, across: tuple[float, float], up: tuple[float, float]) -> None:
        self._title, self._x, self._y = title, x, y
        self._across, self._up = _widened(across), _widened(up)
        self._parts: list[str] = []
        self._legend: list[str] = []

    def line(self, points: Points, series: int, name: str | None = None, *, dots: bool = True) -> None:
        """Add a line through points in the colour of a series, with a name in the legend."""
        shown = [(self._at(x, y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
        self._parts.append(f'<polyline class="line s{series}" points="{path}"/>')
        if dots:
            self._parts += [f'<circle class="dot s{series}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in shown]
        if name is not None:
            self._legend.append(f'<span><i class="key s{series}"></i>{escape(name)}</span>')

    def dots(self, points: Points, series: int) -> None:
        """Add dots alone, half transparent."""
        for x, y in points:
            across, up = self._at(x, y)
            self._parts.append(f'<circle class="cloud s{series}" cx="{across:.1f}" cy="{up:.1f}" r="3"/>')

    def rule(self, points: Points) -> None:
        """Add a thin broken line, for comparison."""
        path = " ".join("{:.1f},{:.1f}".format(*self._at(x, y)) for x, y in points)
        self._parts.append(f'<polyline class="rule" points="{path}"/>')

    def _at(self, x: float, y: float) -> tuple[float, float]:
        (left, right), (low, high) = self._across, self._up
        across = _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        return across, _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def html(self) -> str:
        """Return the plot with its legend."""
        parts = []
        for x in ticks(*self._across):
            across, bottom = self._at(x, self._up[0])
            parts.append(f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="{_TOP}" y2="{bottom:.1f}"/>')
            parts.append(f'<text x="{across:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{_number(x)}</text>')
        for y in ticks(*self._up):
            left, up = self._at(self._across[0], y)
            parts.append(f'<line class="grid" x1="{left:.1f}" x2="{_WIDTH - _RIGHT}" y1="{up:.1f}" y2="{up:.1f}"/>')
            parts.append(f'<text x="{left - 6:.1f}" y="{up + 4:.1f}" text-anchor="end">{_number(y)}</text>')
        middle, side = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
        parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(self._x)}</text>')
        turned = f'transform="translate(12 {side}) rotate(-90)"'
        parts.append(f'<text {turned} text-anchor="middle">{escape(self._y)}</text>')
        legend = f'<p class="legend">{"".join(self._legend)}</p>' if self._legend else ""
        return (
            f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(self._title)}</title>'
            f"{''.join([*parts, *self._parts])}</svg>{legend}</figure>"
        )


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two limits, some five of them."""
    rough = (high - low) / _TICKS
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis for some values, with room around them."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = 0.05 * (high - low)
    return low - room, high + room


def _widened(given: tuple[float, float]) -> tuple[float, float]:
    low, high = given
    return given if high > low else (low - 0.5, low + 0.5)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value + 0.0:.6g}"
