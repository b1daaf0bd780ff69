"""Plots as plain SVG: axes, lines, points, density cells and bars that follow the page's colours."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
_TOP = 46  # height of the title and the legend


@dataclass(frozen=True)
class Axis:
    """One axis of a chart: its range, its scale and what it says.

    >>> Axis(0.0, 1.0).ticks()
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> Axis(0.01, 10.0, log=True).ticks()
    [0.01, 0.1, 1.0, 10.0]
    """

    low: float
    high: float
    label: str = ""
    log: bool = False

    @classmethod
    def over(cls, *values: ArrayLike, label: str = "", log: bool = False, zero: bool = False) -> Axis:
        """Return the axis that shows all finite values (on a log scale, positive ones) and a margin."""
        flat = np.concatenate([np.asarray(v, dtype=float).ravel() for v in values])
        flat = flat[np.isfinite(flat) & ((flat > 0) | (not log))]
        if not len(flat):
            return cls(0.1 if log else 0.0, 1.0, label, log)
        low, high = float(flat.min()), float(flat.max())
        if log:
            return cls(low / 1.25, high * 1.25, label, True)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
        return cls(0.0 if zero else low - margin, high + margin, label)

    def ticks(self, most: int = 6) -> list[float]:
        """Return round numbers inside the range."""
        if self.log:
            low, high = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            if high - low >= 1:
                stride = max(1, math.ceil((high - low + 1) / most))
                return [float(f"1e{k}") for k in range(low, high + 1, stride)]
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = [float(f"{m}e{k}") for k in exponents for m in (1, 2, 3, 5)]
            return [s for s in steps if self.low <= s <= self.high]
        span = self.high - self.low
        raw = span / max(most - 1, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{k * step:.12g}") for k in range(first, last + 1)]

    def place(self, values: ArrayLike) -> Array:
        """Return the position of values along the axis, 0 at its start and 1 at its end."""
        values = np.asarray(values, dtype=float)
        if not self.log:
            return np.asarray((values - self.low) / (self.high - self.low))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(values / self.low) / math.log(self.high / self.low))


def tick_label(value: float) -> str:
    """Write a tick without needless digits.

    >>> tick_label(0.0), tick_label(250.0), tick_label(1e-5), tick_label(0.25)
    ('0', '250', '1e-5', '0.25')
    """
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, power = f"{value:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:.10g}".replace("-", "−")


@dataclass
class Chart:
    """A rectangle with two axes, filled by ``line``, ``points``, ``cells``, ``bars``; see ``svg``."""

    x: Axis
    y: Axis
    width: float = 340
    height: float = 240
    title: str = ""
    parts: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)
    left: float = 52
    bottom: float = 40
    right: float = 14

    def _xy(self, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        across, down = self.width - self.left - self.right, self.height - self.bottom - _TOP
        return self.left + self.x.place(x) * across, _TOP + (1 - self.y.place(y)) * down

    def line(self, x: ArrayLike, y: ArrayLike, style: str, name: str = "", marks: bool = False) -> Chart:
        """Draw a curve; a missing value leaves a gap."""
        px, py = self._xy(x, y)
        path, pen = [], "M"
        for a, b in zip(px, py, strict=True):
            if math.isfinite(a) and math.isfinite(b):
                path.append(f"{pen}{a:.1f} {b:.1f}")
                pen = "L"
            else:
                pen = "M"
        self.parts.append(f'<path class="line {style}" d="{"".join(path)}"/>')
        if marks or len(path) == 1:
            self._dots(px, py, style, 2.2, None)
        if name:
            self.legend.append((style, name))
        return self

    def points(
        self, x: ArrayLike, y: ArrayLike, style: str, name: str = "", hints: Sequence[str] | None = None
    ) -> Chart:
        """Draw one dot for each pair; ``hints`` are shown when the pointer rests on it."""
        px, py = self._xy(x, y)
        self._dots(px, py, style, 2.6, hints)
        if name:
            self.legend.append((style, name))
        return self

    def _dots(self, px: Array, py: Array, style: str, radius: float, hints: Sequence[str] | None) -> None:
        for i, (a, b) in enumerate(zip(px, py, strict=True)):
            if math.isfinite(a) and math.isfinite(b):
                hint = f"<title>{escape(hints[i])}</title>" if hints is not None else ""
                self.parts.append(
                    f'<circle class="dot {style}" cx="{a:.1f}" cy="{b:.1f}" r="{radius}">{hint}</circle>'
                )

    def cells(self, x: ArrayLike, y: ArrayLike, bins: int = 56) -> Chart:
        """Draw the density of pairs as squares whose strength grows with the logarithm of their number."""
        edges_x = np.linspace(self.x.low, self.x.high, bins + 1)
        edges_y = np.linspace(self.y.low, self.y.high, bins + 1)
        counts, _, _ = np.histogram2d(np.ravel(x), np.ravel(y), bins=(edges_x, edges_y))
        strongest = math.log1p(counts.max()) or 1.0
        px, py = self._xy(edges_x, edges_y)
        wide, high = px[1] - px[0] + 0.3, py[0] - py[1] + 0.3
        for i, k in np.argwhere(counts > 0):
            level = 1 + int(6 * math.log1p(counts[i, k]) / strongest - 1e-9)
            place = f'x="{px[i]:.1f}" y="{py[k + 1]:.1f}" width="{wide:.1f}" height="{high:.1f}"'
            self.parts.append(
                f'<rect class="d{level}" {place}><title>{int(counts[i, k])} components</title></rect>'
            )
        return self

    def bars(self, edges: ArrayLike, heights: ArrayLike, style: str) -> Chart:
        """Draw a histogram."""
        edges, heights = np.asarray(edges, dtype=float), np.asarray(heights, dtype=float)
        px, py = self._xy(edges, np.concatenate([np.maximum(heights, self.y.low), [self.y.low]]))
        for i, value in enumerate(heights):
            if value > self.y.low:
                size = f'width="{max(px[i + 1] - px[i] - 1, 0.5):.1f}" height="{max(py[-1] - py[i], 0):.1f}"'
                hint = f"<title>{tick_label(edges[i])} to {tick_label(edges[i + 1])}: {value:.6g}</title>"
                self.parts.append(
                    f'<rect class="bar {style}" x="{px[i] + 0.5:.1f}" y="{py[i]:.1f}" {size}>{hint}</rect>'
                )
        return self

    def diagonal(self) -> Chart:
        """Draw y = x."""
        return self.line([self.x.low, self.x.high], [self.x.low, self.x.high], "guide")

    def level(self, value: float, text: str = "") -> Chart:
        """Draw a dashed horizontal line and its name."""
        px, py = self._xy([self.x.low, self.x.high], [value, value])
        self.parts.append(f'<path class="line guide" d="M{px[0]:.1f} {py[0]:.1f}H{px[1]:.1f}"/>')
        self.parts.append(_text("note", px[1] - 4, py[0] - 4, text, "end"))
        return self

    def upright(self, value: float, text: str = "", row: int = 0) -> Chart:
        """Draw a dashed vertical line and its name, in a row that no other name uses."""
        px, py = self._xy([value, value], [self.y.low, self.y.high])
        self.parts.append(f'<path class="line guide" d="M{px[0]:.1f} {py[0]:.1f}V{py[1]:.1f}"/>')
        anchor, shift = ("end", -4) if px[0] > 0.6 * self.width else ("start", 4)
        self.parts.append(_text("note", px[0] + shift, py[1] + 11 + 15 * row, text, anchor))
        return self

    def note(self, lines: Sequence[str]) -> Chart:
        """Write a few numbers into the upper left corner."""
        self.parts += [_text("note", self.left + 9, 62 + 14 * i, text) for i, text in enumerate(lines)]
        return self

    def _axes(self) -> list[str]:
        x0, y0, x1, y1 = self.left, self.height - self.bottom, self.width - self.right, _TOP
        out = [f'<path class="axis" d="M{x0:g} {y0:g}H{x1:g}"/>']
        for value in self.y.ticks(5):
            at = float(self._xy(self.x.low, value)[1])
            out.append(f'<path class="grid" d="M{x0:g} {at:.1f}H{x1:g}"/>')
            out.append(_text("tick", x0 - 6, at + 3.5, tick_label(value), "end"))
        for value in self.x.ticks(max(4, int((x1 - x0) / 55))):
            at = float(self._xy(value, self.y.low)[0])
            out.append(f'<path class="axis" d="M{at:.1f} {y0:g}v4"/>')
            out.append(_text("tick", at, y0 + 16, tick_label(value), "middle"))
        out.append(_text("label", (x0 + x1) / 2, self.height - 6, self.x.label, "middle"))
        upwards = f'transform="translate(12 {(y0 + y1) / 2:.1f}) rotate(-90)"'
        out.append(_text("label", 0, 0, self.y.label, "middle", upwards))
        return out

    def svg(self) -> str:
        """Return the chart as an ``<svg>`` element that scales with the page."""
        head, at = [_text("title", 0, 14, self.title)], self.left
        for style, name in self.legend:
            head.append(f'<path class="line {style}" d="M{at:.1f} 31h14"/>')
            head.append(_text("legend", at + 19, 35, name))
            at += 34 + 6.3 * len(name)
        inside = "".join(self.parts)
        clip = f"c{zlib.crc32((self.title + inside).encode()):x}"
        size = f'width="{self.width - self.left - self.right:g}" height="{self.height - self.bottom - 42:g}"'
        frame = f'<clipPath id="{clip}"><rect x="{self.left:g}" y="42" {size}/></clipPath>'
        body = "".join([frame, *head, *self._axes(), f'<g clip-path="url(#{clip})">{inside}</g>'])
        box = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        return f'<svg class="chart" {box} role="img" aria-label="{escape(self.title)}">{body}</svg>'


def _text(style: str, x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place} {more}>{escape(text)}</text>' if text else ""
