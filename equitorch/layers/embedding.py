"""Chemical elements as learned vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equitorch.ops.indices import readable


class ElementEmbedding(nn.Module):
    """One learned vector for each chemical element.

    Args:
        channels: length of the vectors.
        species: the atomic numbers that may occur, one weight row each, in this order. None: every number
            from 0 (a padding or dummy atom) to ``max_atomic_number`` has a row of its own.
        max_atomic_number: the largest atomic number without ``species``.

    Shape:
        atomic_numbers: (...) int64 -> (..., channels)

    Raises:
        ValueError: if ``species`` are empty, repeated or negative, or an atomic number is negative.

    >>> ElementEmbedding(16, species=[1, 6, 8])(torch.tensor([8, 1, 1])).shape
    torch.Size([3, 16])
    """

    index: Tensor | None

    def __init__(
        self, channels: int, *, species: Sequence[int] | None = None, max_atomic_number: int = 118
    ) -> None:
        super().__init__()
        self.channels, self.species = channels, None if species is None else tuple(int(z) for z in species)
        index = None
        if self.species is not None:
            if not self.species or min(self.species) < 0 or len(set(self.species)) < len(self.species):
                raise ValueError(
                    f"ElementEmbedding expects distinct atomic numbers, one or more, got {list(self.species)}"
                )
            # An atomic number that is not listed points outside the weight, so that looking it up fails.
            index = torch.full((max(self.species) + 1,), len(self.species), dtype=torch.long)
            index[list(self.species)] = torch.arange(len(self.species))
        self.register_buffer("index", index, persistent=False)
        rows = max_atomic_number + 1 if self.species is None else len(self.species)
        self.weight = nn.Parameter(torch.randn(rows, channels))

    def species_index(self, atomic_numbers: Tensor) -> Tensor:
        """The weight row of each atom. Shape (...) int64, e.g. for ``Linear(..., species=...)``."""
        if self.index is None:
            return atomic_numbers
        if readable(atomic_numbers) and bool((atomic_numbers < 0).any()):  # would count from the end
            raise ValueError(
                f"ElementEmbedding expects atomic numbers of {list(self.species or ())}, "
                f"got {int(atomic_numbers.min())}"
            )
        return self.index[atomic_numbers]

    def forward(self, atomic_numbers: Tensor) -> Tensor:
        return nn.functional.embedding(self.species_index(atomic_numbers), self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]} elements, {self.channels} channels"
