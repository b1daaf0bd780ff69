"""equitorch/ops/multilinear.py"""

import pytest
import torch

from equitorch.ops.multilinear import Multilinear, with_derivatives

LETTERS = ["bi", "bj", "bk"]
calls = []


def reference(open_slot, operands, plan, sizes):
    filled = [letters for k, letters in enumerate(LETTERS) if k != open_slot]
    return torch.einsum(f"ijk,{','.join(filled)}->{LETTERS[open_slot]}", plan[0], *operands)


def kernel(*arguments):
    calls.append(arguments[0])
    return reference(*arguments)


def fake(open_slot, operands, plan, sizes):
    return operands[0].new_empty(operands[0].shape[0], plan[0].shape[open_slot])


form = Multilinear("test_form", reference=reference, fake=fake, cpu=lambda: kernel)


@pytest.fixture
def case():
    torch.manual_seed(0)
    calls.clear()
    a, b = (torch.randn(5, n, dtype=torch.float64, requires_grad=True) for n in (2, 3))
    return a, b, torch.randn(2, 3, 4, dtype=torch.float64)


def test_is_its_own_derivative_to_any_order(case):
    a, b, plan = case
    assert torch.autograd.gradcheck(lambda a, b: form(2, [a, b], [plan]), (a, b))
    assert torch.autograd.gradgradcheck(lambda a, b: form(2, [a, b], [plan]), (a, b))


def test_evaluates_only_the_slots_that_are_wanted(case):
    a, b, plan = case
    value = form(2, [a, b], [plan]).square().sum()
    (grad,) = torch.autograd.grad(value, a, create_graph=True)
    assert calls == [2, 0]  # b requires a gradient too, but nobody asked for it
    calls.clear()
    torch.autograd.backward(grad.square().sum(), inputs=[b])
    assert calls == [2, 1, 1] or sorted(calls) == [1, 1, 2]


def test_notices_an_operand_changed_in_place(case):
    a, b, plan = case
    value = form(2, [a, b], [plan]).sum()
    with torch.no_grad():
        b.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        value.backward()


def test_is_a_well_formed_operator(case):
    a, b, plan = case
    torch.library.opcheck(form.op, ([a, b], 2, [plan], []))


@pytest.mark.parametrize("dim", [0, 1])
def test_maps_its_operator_over_a_batch(case, dim):
    a, b, plan = (t.detach() for t in case)
    both = torch.vmap(lambda a: form.op([a, b], 2, [plan], []), in_dims=dim)(torch.stack([a, 2 * a], dim))
    torch.testing.assert_close(both[1], 2 * form(2, [a, b], [plan]))


def test_with_derivatives_means_what_it_is_told():
    x = torch.tensor(3.0, requires_grad=True)
    y = with_derivatives(x.detach() ** 2, [(x, lambda grad: 5 * grad)])  # a lie, to see it believed
    assert torch.autograd.grad(y, x)[0] == 5
    assert not with_derivatives(x.detach(), []).requires_grad
