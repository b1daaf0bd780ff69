"""equitorch/layers/dropout.py"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import Dropout
from equitorch.reps import Irreps, from_e3nn, rows_of, to_e3nn
from equitorch.testing import assert_equivariant
from tests.strategies import flat_irreps, random, seeds

SPEC = "2x0e+2x1o+2e"


def test_drops_whole_irreps_and_keeps_the_mean():
    torch.manual_seed(0)
    irreps = Irreps(SPEC)
    y = Dropout(irreps, 0.25)(torch.ones(1000, irreps.dim, 8))
    assert y.unique().tolist() == pytest.approx([0.0, 4 / 3])
    for rows in irreps.copy_slices():
        assert (y[:, rows] == y[:, rows][:, :1]).all()
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)
    assert (y[:, 0] != y[:, 1]).any()


def test_leaves_all_or_nothing_where_asked():
    x = torch.randn(5, 12, 3)[:, :12]
    assert torch.equal(Dropout("3x1o+3x0e", 0.5).eval()(x), x)
    assert torch.equal(Dropout("3x1o+3x0e", 0.0)(x), x)
    assert torch.equal(Dropout("3x1o+3x0e", 1.0)(x), torch.zeros_like(x))


def test_commutes_for_every_draw():
    layer = Dropout(SPEC, 0.5)

    def same_draw(x):
        torch.manual_seed(3)
        return layer(x)

    assert_equivariant(same_draw, [SPEC], SPEC)


def test_the_check_can_fail():
    def rows_by_themselves(x):
        torch.manual_seed(3)
        return torch.nn.functional.dropout(x, 0.5)

    with pytest.raises(AssertionError, match="is off by"):
        assert_equivariant(rows_by_themselves, [SPEC], SPEC)


def test_compiles_to_one_graph():
    layer, x = torch.compile(Dropout(SPEC, 0.5), fullgraph=True, backend="aot_eager"), torch.ones(4, 13, 2)
    assert set(layer(x).unique().tolist()) == {0.0, 2.0}


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"a probability p between 0 and 1, got 2"):
        Dropout(SPEC, 2)
    with pytest.raises(ValueError, match=r"expects x of shape \(\.\.\., 13, channels\), got \(4, 8\)"):
        Dropout(SPEC, 0.5)(torch.ones(4, 8))


@given(flat_irreps, st.sampled_from([0.0, 0.3, 0.8, 1.0]), st.sampled_from([(), (3,), (2, 3)]), seeds)
def test_is_e3nns_dropout_for_the_same_seed(spec, p, between, seed):
    nn = pytest.importorskip("e3nn.nn")
    theirs, ours = nn.Dropout(str(spec), p), Dropout(rows_of(spec), p)
    x = random(seed, 4, *between, spec.dim)
    torch.manual_seed(seed)
    y = theirs(x)
    torch.manual_seed(seed)
    torch.testing.assert_close(to_e3nn(ours(from_e3nn(x, spec)), spec), y)
    assert torch.equal(ours.eval()(from_e3nn(x, spec)), from_e3nn(theirs.eval()(x), spec))
