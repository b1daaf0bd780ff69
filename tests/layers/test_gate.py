"""equitorch/layers/gate.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import Gate
from equitorch.reps import Irreps, from_e3nn, rows_of, to_e3nn
from equitorch.testing import assert_equivariant
from tests.strategies import flat_entry, random, seeds

CASES = [
    ("16x0e", ["silu"], "8x0e", ["sigmoid"], "8x1o"),
    ("4x0o", [torch.tanh], "8x0o", [torch.tanh], "4x1e+4x1o"),
    ("2x0e+3x0o", ["silu", torch.abs], "4x0e+4x0o", ["sigmoid", torch.tanh], "2x2e+3x1o+3x1e"),
    ("2x0e+2x0o+1x0e", ["silu", torch.tanh, "tanh"], "2x0e+1x0o", ["sigmoid", torch.abs], "1o+0e+2e"),
    ("3x0e", ["silu"], "", [], ""),
    ("", [], "2x0e", ["silu"], "1o+2e"),
]


def functions(acts):
    named = {"silu": torch.nn.functional.silu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    return [named.get(act, act) if isinstance(act, str) else act for act in acts]


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_e3nn(case):
    nn = pytest.importorskip("e3nn.nn")
    scalars, act_scalars, gates, act_gates, gated = case
    ours, theirs = Gate(*case), nn.Gate(scalars, functions(act_scalars), gates, functions(act_gates), gated)
    assert repr(ours.irreps_in) == repr(theirs.irreps_in)
    assert repr(ours.irreps_out.simplify()) == repr(theirs.irreps_out.simplify())
    x = torch.randn(5, ours.irreps_in.dim, dtype=torch.float64)
    torch.testing.assert_close(ours(x[..., None])[..., 0], theirs(x))


@pytest.mark.parametrize("case", [*CASES, ("2x0", ["silu"], "2x0", ["sigmoid"], "1+2")])
def test_commutes_with_every_rotation_and_mirror(case):
    gate = Gate(*case)
    assert_equivariant(gate, [gate.irreps_in], gate.irreps_out)


def test_multiplies_vectors_by_gates_by_hand():
    gate = Gate("0e", [None], "0e", [None], "1o")
    x = torch.tensor([3.0, 2.0, 1.0, -1.0, 0.5])[:, None]
    assert gate(x).flatten().tolist() == [3.0, 2.0, -2.0, 1.0]  # scalar 3 kept, vector times gate 2


def test_the_check_can_fail():
    gate = Gate("0e", ["silu"], "0o", [torch.tanh], "1o")
    assert gate.irreps_out == Irreps("0e+1e")
    with pytest.raises(AssertionError, match="is off by"):
        assert_equivariant(gate, [gate.irreps_in], "0e+1o")


@pytest.mark.parametrize("case", CASES)
def test_compiles_to_one_graph_and_differentiates(case):
    gate = Gate(*case)
    x = torch.randn(2, gate.irreps_in.dim, 2, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(torch.compile(gate, fullgraph=True, backend="aot_eager")(x), gate(x))
    assert gate(x[:0]).shape == (0, gate.irreps_out.dim, 2)
    small = torch.randn(1, gate.irreps_in.dim, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gate, small)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"got 3 gates \(3x0e\) for 2 gated irreps \(2x1o\)"):
        Gate("0e", ["silu"], "3x0e", ["silu"], "2x1o")
    with pytest.raises(ValueError, match=r"expects irreps_gates to hold scalars .* got 1x1o"):
        Gate("0e", ["silu"], "1o", ["silu"], "1o")
    with pytest.raises(ValueError, match=r"expects x of shape \(\.\.\., 5, channels\), got \(2, 4, 1\)"):
        Gate("0e", ["silu"], "0e", ["silu"], "1o")(torch.ones(2, 4, 1))


scalars = st.lists(
    st.tuples(
        st.sampled_from([0, 2, 4]), st.sampled_from(["0e", "0o"]), st.sampled_from([torch.tanh, torch.abs])
    )
)


@st.composite
def gates(draw):
    """Arguments of a gate, multiplicities all even; the gates cut the gated irreps at places of their own."""
    kept = draw(scalars)
    gated = [(2 * mul, ir) for mul, ir in draw(st.lists(flat_entry, max_size=3))]
    left, cuts = sum(mul for mul, _ in gated), []
    while left:
        mul = 2 * draw(st.integers(1, left // 2))
        cuts.append((mul, *draw(st.sampled_from([("0e", "sigmoid"), ("0o", "tanh"), ("0e", "silu")]))))
        left -= mul
    return (
        Irreps([(mul, ir) for mul, ir, _ in kept]),
        [act for _, _, act in kept],
        Irreps([(mul, ir) for mul, ir, _ in cuts]),
        [act for _, _, act in cuts],
        Irreps(gated),
    )


@given(gates(), st.sampled_from([1, 2]), seeds)
def test_is_e3nns_gate(case, channels, seed):
    nn = pytest.importorskip("e3nn.nn")
    scalars, act_scalars, gates, act_gates, gated = case
    if not gated.dim or (len(scalars) and not scalars.dim):  # on which e3nn's breaks
        return
    theirs = nn.Gate(str(scalars), functions(act_scalars), str(gates), functions(act_gates), str(gated))
    rows = [rows_of(group, channels) for group in (scalars, gates, gated)]
    ours = Gate(rows[0], act_scalars, rows[1], act_gates, rows[2])
    flat_in, flat_out = Irreps(str(theirs.irreps_in)), Irreps(str(theirs.irreps_out))
    assert ours.irreps_in == rows_of(flat_in, channels)
    assert ours.irreps_out == rows_of(flat_out, channels)
    x = random(seed, 2, 3, flat_in.dim)
    y = to_e3nn(ours(from_e3nn(x, flat_in, channels)), flat_out)
    torch.testing.assert_close(y, theirs(x), rtol=1e-12, atol=1e-12)


def test_takes_exact_constants_where_asked():
    x = torch.randn(3, 4, 2, dtype=torch.float64)
    near, exact = (Gate("0e", ["silu"], "", [], "", e3nn_compat=compat)(x[:, :1]) for compat in (True, False))
    torch.testing.assert_close(near / exact, torch.full_like(near, 1.6791767923989418 / 1.6765324703310909))
