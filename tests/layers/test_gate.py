"""equitorch/layers/gate.py"""

import pytest
import torch

from equitorch.layers import Gate
from equitorch.reps import Irreps
from equitorch.testing import assert_equivariant

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
