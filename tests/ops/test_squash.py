"""equitorch/ops/squash"""

import pytest
import torch

from equitorch.ops.backend import use_reference
from equitorch.ops.squash import reference, squash
from equitorch.reps import Irreps
from equitorch.testing import assert_equivariant


def test_halves_a_unit_vector():
    """Known without this library: |x| = 1 gives x / 2, and |y| never exceeds one half."""
    x = torch.randn(5, 9, 3, dtype=torch.float64)
    unit = x / x.norm(dim=1, keepdim=True)
    torch.testing.assert_close(squash(unit), unit / 2)
    assert squash(100 * x).norm(dim=1).max() < 0.5


def test_commutes_with_every_rotation_and_mirror():
    assert_equivariant(squash, [Irreps("0e+1o+2e")], Irreps("0e+1o+2e"))


def test_the_check_can_fail():
    with pytest.raises(AssertionError):
        assert_equivariant(lambda x: x / (x * x + 1), [Irreps("1o")], Irreps("1o"))


@pytest.mark.parametrize("shape", [(0, 9, 4), (1, 1, 1), (3, 4, 129), (2, 3, 9, 16), (2, 65, 3), (2, 0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", ["cpu", "triton"])
def test_kernels_agree_with_the_reference(kernel, shape, dtype):
    """On a GPU the compiled kernels; elsewhere the same source in Triton's interpreter."""
    kernels = pytest.importorskip(f"equitorch.ops.squash.{kernel}", reason=f"{kernel} is not installed")
    torch.manual_seed(0)
    x, h, k = (torch.randn(*shape[:-2], shape[-1], shape[-2], dtype=dtype).mT for _ in range(3))
    for name, operands in (("squash", (x,)), ("slope", (x, h)), ("curvature", (x, h, k))):
        torch.testing.assert_close(
            getattr(kernels, name)(*operands), getattr(reference, name)(*operands), atol=1e-5, rtol=1e-5
        )


def test_differentiates_three_times():
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)

    def force(x):
        return torch.autograd.grad(squash(x).sin().sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(squash, (x,))
    assert torch.autograd.gradgradcheck(squash, (x,))
    assert torch.autograd.gradgradcheck(force, (x,))


def test_compiles_to_one_graph():
    x = torch.randn(5, 9, 3)
    torch.testing.assert_close(torch.compile(squash, fullgraph=True, backend="aot_eager")(x), squash(x))


def test_reference_can_be_asked_for():
    x = torch.randn(5, 9, 3)
    with use_reference():
        torch.testing.assert_close(squash(x), reference.squash(x))
