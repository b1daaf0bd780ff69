"""What a property may be asked about: Hypothesis draws these, and shrinks what fails."""

from hypothesis import strategies as st

from equitorch.reps import Irrep, Irreps

seeds = st.integers(0, 2**31 - 1)
irrep = st.builds(Irrep, st.integers(0, 3), st.sampled_from([1, -1]))
entry = st.tuples(st.integers(0, 3), irrep)
irreps = st.lists(entry, min_size=1, max_size=4).map(Irreps).filter(lambda irreps: irreps.dim > 0)
irreps_without_parity = irreps.map(Irreps.without_parity)


@st.composite
def couplable(draw):
    """Three irreps that couple in exactly one way."""
    x, y = draw(irrep), draw(irrep)
    l = draw(st.integers(abs(x.l - y.l), min(x.l + y.l, 3)))
    return x, y, Irrep(l, x.p * y.p)
