r"""The form under all products of functions on the sphere, and sums of its derivatives.

.. math:: F(x, y, p, b) = \int x\, y\, p + \int b\, \{x, y\}

Slots 0 and 1 are the factors x and y; slot 2 reads the product, slot 3 the bracket. The integral of a
bracket is antisymmetric in all three functions, so that y needs no gradient:

.. math:: \int b\, \{x, y\} = \int y\, \{b, x\} = \int y\, (b_\beta x_\alpha - b_\alpha x_\beta)

with components of the gradient along beta and alpha.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

PRODUCT, BRACKET = 2, 3
PARITIES = ("even", "odd", "both")
BACKENDS = ("auto", "dense", "grid", "separable", "fft")
PRECISIONS = ("ieee", "tf32x3", "tf32", "bf16")

Term = tuple[tuple[int, str], tuple[int, str], tuple[int, str], float]

_PRODUCT: tuple[Term, ...] = (((0, "value"), (1, "value"), (PRODUCT, "value"), 1.0),)
_BRACKET: tuple[Term, ...] = (
    ((0, "azimuthal"), (1, "value"), (BRACKET, "polar"), 1.0),
    ((0, "polar"), (1, "value"), (BRACKET, "azimuthal"), -1.0),
)
_TERMS = {"even": _PRODUCT, "odd": _BRACKET, "both": _PRODUCT + _BRACKET}


class Form(NamedTuple):
    """Degrees of the slots, which products are wanted, and how they are computed.

    >>> Form(2, 2, 4, "odd").components(0)
    ('polar', 'azimuthal')
    """

    lmax1: int
    lmax2: int
    lmax_out: int
    parity: str
    backend: str = "auto"
    precision: str = "ieee"

    @staticmethod
    def read(sizes: Sequence[int]) -> Form:
        """The inverse of ``sizes``."""
        l1, l2, l3, parity, backend, precision = sizes
        return Form(l1, l2, l3, PARITIES[parity], BACKENDS[backend], PRECISIONS[precision])

    @property
    def sizes(self) -> list[int]:
        """Everything as numbers, for the schema of an operator."""
        names = zip((PARITIES, BACKENDS, PRECISIONS), self[3:], strict=True)
        return [*self[:3], *(known.index(name) for known, name in names)]

    @property
    def lmaxs(self) -> tuple[int, int, int]:
        """Highest degrees of x, y and the result."""
        return self.lmax1, self.lmax2, self.lmax_out

    @property
    def terms(self) -> tuple[Term, ...]:
        """Products on the grid: component of each of three slots, and a sign."""
        return _TERMS[self.parity]

    def lmax(self, slot: int) -> int:
        """Highest degree in a slot."""
        return self.lmaxs[min(slot, PRODUCT)]

    def rows(self, slot: int) -> int:
        """Rows of a slot."""
        return (self.lmax(slot) + 1) ** 2

    def components(self, slot: int) -> tuple[str, ...]:
        """What is needed of a function in a slot."""
        return _components(self.parity, slot)


class Request(NamedTuple):
    """The derivative of the form with respect to a slot, summed over pairs of tensors in the others."""

    slot: int
    pairs: tuple[tuple[int, int], ...]


class Program(NamedTuple):
    """Several sums of derivatives of one form at shared arguments; its own derivative is another program.

    Attributes:
        slots: of each tensor.
        requests: what to compute.

    >>> Program((0, 1), (Request(2, ((0, 1),)),)).derivative((0, 1), (0,))
    Program(slots=(0, 1, 2), requests=(Request(slot=0, pairs=((1, 2),)), Request(slot=1, pairs=((0, 2),))))
    """

    slots: tuple[int, ...]
    requests: tuple[Request, ...]

    @staticmethod
    def read(numbers: Sequence[int]) -> Program:
        """The inverse of ``numbers``."""
        rest = list(numbers)
        count = rest.pop(0)
        slots, rest = tuple(rest[:count]), rest[count:]
        requests = []
        while rest:
            slot, size, *rest = rest
            flat, rest = rest[: 2 * size], rest[2 * size :]
            requests.append(Request(slot, tuple(zip(flat[::2], flat[1::2], strict=True))))
        return Program(slots, tuple(requests))

    @property
    def numbers(self) -> list[int]:
        """Everything in one list, for the schema of an operator."""
        flat = [len(self.slots), *self.slots]
        for slot, pairs in self.requests:
            flat += [slot, len(pairs), *(n for pair in pairs for n in pair)]
        return flat

    @functools.lru_cache(maxsize=256)  # noqa: B019 - programs are few and small
    def derivative(self, wanted: tuple[int, ...], given: tuple[int, ...]) -> Program:
        """The program whose tensors are these and cotangents of the results ``given``.

        Args:
            wanted: tensors with respect to which to differentiate, each of which occurs in a pair.
            given: results that have a cotangent.
        """
        slots = self.slots + tuple(self.requests[r].slot for r in given)
        found: dict[int, list[tuple[int, int]]] = {tensor: [] for tensor in wanted}
        for place, r in enumerate(given, start=len(self.slots)):
            for i, j in self.requests[r].pairs:
                for own, other in ((i, j), (j, i)):
                    if own in found:
                        found[own].append((other, place))
        requests = tuple(Request(self.slots[tensor], tuple(pairs)) for tensor, pairs in found.items())
        return Program(slots, requests)


@functools.cache
def _components(parity: str, slot: int) -> tuple[str, ...]:
    found = {name for *factors, _ in _TERMS[parity] for s, name in factors if s == slot}
    return tuple(name for name in ("value", "polar", "azimuthal") if name in found)
