"""equitorch/layers/gaunt_from_cg.py"""

import pytest
import torch

from equitorch.layers import TensorProduct, from_cg_weights
from equitorch.reps import Irreps
from equitorch.reps.convention import from_e3nn


def irreps(lmax, channels, sign=1):
    return Irreps([(channels, (l, sign * (-1) ** l)) for l in range(lmax + 1)])


def paths(slots, mode):
    return [
        (i, j, k, mode, True)
        for i, (_, a) in enumerate(slots[0])
        for j, (_, b) in enumerate(slots[1])
        for k, (_, c) in enumerate(slots[2])
        if c in a * b
    ]


def slots_of(lmax, channels, kind):
    second = irreps(lmax, 1 if kind == "uvu" else channels)
    return irreps(lmax, channels), second, irreps(lmax, channels, -1 if kind == "odd" else 1)


def kept(slots, kind):
    found = paths(slots, "uvu" if kind == "uvu" else "uuu")
    return [path for n, path in enumerate(found) if n % 3 or kind != "missing"]


@pytest.mark.parametrize("kind", ["even", "odd", "uvu", "missing"])
@pytest.mark.parametrize("lmax", [2, 3])
def test_does_what_modules_of_e3nn_do(lmax, kind):
    o3 = pytest.importorskip("e3nn.o3")
    torch.manual_seed(0)
    slots = slots_of(lmax, 2, kind)
    product = o3.TensorProduct(*map(str, slots), kept(slots, kind)).double()
    layer, error = from_cg_weights(product)
    x, y = (torch.randn(5, s.dim, dtype=torch.float64) for s in slots[:2])
    expected = from_e3nn(product(x, y), slots[2])
    found = layer(from_e3nn(x, slots[0]), from_e3nn(y, slots[1]))
    assert error < 1e-4
    assert (found - expected).norm() < 1e-4 * expected.norm()
    if kind == "even":
        assert layer.rank == lmax  # as many as random path weights need


@pytest.mark.parametrize("layout", ["rows", "e3nn"])
@pytest.mark.parametrize("kind", ["even", "uvu"])
def test_does_what_our_own_modules_do(layout, kind):
    torch.manual_seed(0)
    slots = slots_of(2, 3, kind)
    product = TensorProduct(*slots, kept(slots, kind), layout=layout).double()
    layer, _ = from_cg_weights(product)
    x, y = (torch.randn(5, s.dim, dtype=torch.float64) for s in slots[:2])
    ours = from_e3nn(x, slots[0]), from_e3nn(y, slots[1])
    expected = product(*ours) if layout == "rows" else from_e3nn(product(x, y), slots[2])
    assert (layer(*ours) - expected).norm() < 1e-4 * expected.norm()


def test_uniform_weights_need_few_products():
    """Errors that e3nn's uniform normalisation leaves, by rank."""
    slots = slots_of(3, 1, "even")
    product = TensorProduct(*slots, [(*path[:4], False) for path in kept(slots, "even")]).double()
    assert abs(from_cg_weights(product, rank=1, tol=1)[1] - 0.059) < 0.03
    assert from_cg_weights(product, rank=2, tol=1)[1] < 1e-2


def test_finds_the_same_again():
    torch.manual_seed(0)
    slots = slots_of(2, 2, "even")
    product = TensorProduct(*slots, kept(slots, "even"))
    one, two = (from_cg_weights(product)[0] for _ in range(2))
    assert one.weight1.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_check_can_fail():
    torch.manual_seed(0)
    slots = slots_of(2, 2, "even")
    product = TensorProduct(*slots, kept(slots, "even")).double()
    with pytest.raises(ValueError, match=r"reaches the relative error .* with rank 1, above tol=1.0e-04"):
        from_cg_weights(product, rank=1)


def test_says_what_it_expected():
    mixed = TensorProduct("2x0e+2x1o", "2x0e+2x1o", "2x0e+2x1o", [(0, 0, 0, "uvw", True)])
    with pytest.raises(NotImplementedError, match="got uvw between 2, 2 and 2 channels"):
        from_cg_weights(mixed)
    gap = TensorProduct("2x0e+2x2e", "2x0e", "2x0e", [(0, 0, 0, "uuu", True)])
    with pytest.raises(ValueError, match=r"degrees from 0 on, .* got '2x0e\+2x2e'"):
        from_cg_weights(gap)


def test_expects_a_tensor_product():
    with pytest.raises(ValueError, match=r"expects a tensor product with irreps_in1, .*, got Linear\("):
        from_cg_weights(torch.nn.Linear(3, 3))
