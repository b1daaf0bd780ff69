"""Pictures of molecules and cells as plain SVG: balls and sticks, nearest last."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Layer = tuple[float, str]  # depth, drawing

_COLORS = {  # the customary colours of the elements, softened for a light and a dark page
    1: "#e9ecef", 3: "#b58ae0", 5: "#f2b8a2", 6: "#5b6470", 7: "#3f6fd8", 8: "#e0483e", 9: "#7fd06b",
    11: "#9b6fd3", 12: "#63b04f", 13: "#b9a9b6", 14: "#d9b98a", 15: "#f0902f", 16: "#e8c62f", 17: "#49c24e",
    20: "#4fa85a", 22: "#a7acb3", 26: "#cf6b3c", 28: "#58b558", 29: "#c77d3e", 30: "#8287b3", 35: "#9c3a32",
    47: "#b8bfc8", 53: "#7a3a9c", 78: "#b9bdd0", 79: "#e6b93a",
}  # fmt: skip


def color(number: int) -> str:
    """Return the colour of an element; unlisted ones get a fixed hue of their own."""
    return _COLORS.get(number, f"hsl({(number * 47) % 360} 38% 58%)")


def view(pos: Array) -> Array:
    """Return the rotation that shows the broadest side, tilted a little for depth.

    Shape:
        pos: (atoms, 3) -> (3, 3); the third row points to the reader
    """
    _, _, axes = np.linalg.svd(pos - pos.mean(0), full_matrices=True)
    if np.linalg.det(axes) < 0:
        axes[2] = -axes[2]  # a turn, never a mirror: the picture keeps the handedness
    tilt, turn = math.radians(18), math.radians(14)
    rx = np.array([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    ry = np.array([[math.cos(turn), 0, math.sin(turn)], [0, 1, 0], [-math.sin(turn), 0, math.cos(turn)]])
    return np.asarray(rx @ ry @ axes)


def superpose(pos: Array, onto: Array) -> Array:
    """Turn and move positions so that they lie on others as well as they can (Kabsch).

    Shape:
        pos, onto: (atoms, 3) -> (atoms, 3)
    """
    here, there = pos - pos.mean(0), onto - onto.mean(0)
    u, _, v = np.linalg.svd(here.T @ there)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    return np.asarray(here @ u @ sign @ v + onto.mean(0))


def bonds(numbers: NDArray[np.int64], pos: Array) -> list[tuple[int, int]]:
    """Return the pairs of atoms nearer than 1.2 times the sum of their covalent radii."""
    from ase.data import covalent_radii

    radii = covalent_radii[numbers]
    distance = np.linalg.norm(pos[:, None] - pos[None], axis=-1)
    near = (distance < 1.2 * (radii[:, None] + radii[None])) & (distance > 0.1)
    near &= ~((numbers[:, None] == 1) & (numbers[None] == 1))
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(near))]


def _sticks(
    numbers: NDArray[np.int64], pos: Array, xy: Array, depth: Array, paint: list[str], width: float
) -> list[Layer]:
    """Return every bond as two halves, each in the colour of its atom."""
    layers = []
    for i, j in bonds(numbers, pos):
        middle = (xy[i] + xy[j]) / 2
        for atom in (i, j):
            ends = f'x1="{xy[atom][0]:.1f}" y1="{xy[atom][1]:.1f}" x2="{middle[0]:.1f}" y2="{middle[1]:.1f}"'
            stick = f'<line class="bond" {ends} stroke="{paint[atom]}" stroke-width="{width:.1f}"/>'
            layers.append((float(min(depth[i], depth[j])), stick))
    return layers


def _gradient(key: str, tint: str) -> str:
    """Return the shading of a ball: light from the upper left."""
    dark = f"color-mix(in srgb, {tint} 62%, #000)"
    stops = "".join(
        f'<stop offset="{at}" stop-color="{c}"/>' for at, c in ((0, "#fff"), (0.35, tint), (1, dark))
    )
    return f'<radialGradient id="{key}" cx=".36" cy=".32" r=".75">{stops}</radialGradient>'


def picture(
    numbers: Sequence[int],
    pos: Array,
    *,
    size: float = 240,
    turn: Array | None = None,
    reach: float | None = None,
    tints: Sequence[str] | None = None,
    hints: Sequence[str] | None = None,
    name: str = "m",
) -> str:
    """Return a ball-and-stick drawing as an ``<svg>`` element.

    Args:
        numbers: atomic numbers.
        pos: (atoms, 3) positions in Å.
        size: width and height in pixels.
        turn: (3, 3) rotation to look from; by default the broadest side is seen.
        reach: Å from the middle to the edge; by default everything just fits.
        tints: colours instead of the elements' own, e.g. of an error.
        hints: texts shown when the pointer rests on an atom.
        name: a prefix that makes the gradients' names unique on the page.
    """
    from ase.data import chemical_symbols, covalent_radii

    z, pos = np.asarray(numbers, dtype=np.int64), np.asarray(pos, dtype=float)
    turned = (pos - pos.mean(0)) @ (view(pos) if turn is None else turn).T
    radii = 0.42 * covalent_radii[z] + 0.12
    reach = max(float(np.abs(turned[:, :2]).max() + radii.max()), 1.5) if reach is None else reach
    scale = 0.48 * size / reach
    xy, depth = np.array([1, -1]) * turned[:, :2] * scale + size / 2, turned[:, 2]
    paint = list(tints) if tints is not None else [color(int(a)) for a in z]
    shades = {tint: f"{name}{k}" for k, tint in enumerate(dict.fromkeys(paint))}
    layers = _sticks(z, pos, xy, depth, paint, 0.2 * scale)
    for i in range(len(z)):
        text = hints[i] if hints is not None else f"{chemical_symbols[z[i]]} {i}"
        place = f'cx="{xy[i][0]:.1f}" cy="{xy[i][1]:.1f}" r="{radii[i] * scale:.1f}"'
        ball = f'<circle class="atom" {place} fill="url(#{shades[paint[i]]})"><title>{text}</title></circle>'
        layers.append((float(depth[i]), ball))
    gradients = "".join(_gradient(key, tint) for tint, key in shades.items())
    body = "".join(text for _, text in sorted(layers, key=lambda layer: layer[0]))
    box = f'viewBox="0 0 {size:g} {size:g}"'
    return f'<svg class="molecule" {box} role="img"><defs>{gradients}</defs>{body}</svg>'
