"""What a property may be asked about: Hypothesis draws these, and shrinks what fails."""

import torch
from hypothesis import strategies as st

from equitorch.reps import Irrep, Irreps

seeds = st.integers(0, 2**31 - 1)
irrep = st.builds(Irrep, st.integers(0, 3), st.sampled_from([1, -1]))
entry = st.tuples(st.integers(0, 3), irrep)
irreps = st.lists(entry, min_size=1, max_size=4).map(Irreps).filter(lambda irreps: irreps.dim > 0)
irreps_without_parity = irreps.map(Irreps.without_parity)
flat_entry = st.tuples(
    st.sampled_from([0, 2, 4, 6]) | st.integers(1, 3),
    st.builds(Irrep, st.integers(0, 2), st.sampled_from([1, -1])),
)
flat_irreps = st.lists(flat_entry, min_size=1, max_size=5).map(Irreps).filter(lambda irreps: irreps.dim > 0)


def random(seed, *size):
    """Float64 numbers from a seed."""
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def couplable(draw):
    """Three irreps that couple in exactly one way."""
    x, y = draw(irrep), draw(irrep)
    l = draw(st.integers(abs(x.l - y.l), min(x.l + y.l, 3)))
    return x, y, Irrep(l, x.p * y.p)
