"""equitorch/ops/jet"""

import pytest
import torch

from equitorch.ops import jet
from equitorch.ops.jet import reference

KERNELS = ["cpu", "triton"]


def curves(count, orders, points, features, dtype):
    """Strided on purpose: a user's tensor may be a view of another."""
    torch.manual_seed(0)
    return [torch.randn(orders, features, points, dtype=dtype).mT for _ in range(count)]


def module(kernel):
    return pytest.importorskip(f"equitorch.ops.jet.{kernel}", reason=f"{kernel} is not installed")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("points", "features"), [(0, 3), (1, 1), (3, 129)])
@pytest.mark.parametrize("orders", [1, 2, 3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_agree_with_the_reference(kernel, orders, points, features, dtype):
    """On a GPU the compiled kernels; elsewhere the same source in Triton's interpreter."""
    kernels, (x, grad) = module(kernel), curves(2, orders, points, features, dtype)
    a = torch.randn(points, orders, dtype=dtype).mT
    torch.testing.assert_close(kernels.silu(x), reference.silu(x))
    torch.testing.assert_close(kernels.silu_backward(grad, x), reference.silu_backward(grad, x))
    torch.testing.assert_close(kernels.product(a, x), reference.product(a, x))
    y = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(reference.product(a, y), y, grad)
    torch.testing.assert_close(kernels.product_backward(grad, a), want)


def test_knows_the_product_rule():
    """(t^2 + 1) (t + 1) at t = 0: value 1, slope 1, curvature 2."""
    a, x = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 1.0, 0.0])
    assert jet.product(a[:, None], x[:, None, None]).flatten().tolist() == [1.0, 1.0, 2.0]


def test_an_affine_map_trains_under_autocast():
    x, weight = torch.randn(2, 3, 4), torch.randn(5, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = jet.linear(x, weight, torch.zeros(5))
    y.float().sum().backward()
    torch.testing.assert_close(weight.grad, x.sum((0, 1)).expand(5, 4), atol=0.1, rtol=0.1)
