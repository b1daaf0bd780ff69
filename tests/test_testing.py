"""equitorch/testing.py"""

import pytest
import torch
from hypothesis import given

from equitorch.layers import BatchNorm, SphericalHarmonics
from equitorch.reps import DirectSum, Irreps
from equitorch.testing import (
    assert_equivariant,
    check_against,
    equivariance_error,
    random_elements,
    random_irreps,
    random_orthogonal,
    random_rotation,
    symplectic_form,
    transform,
)
from tests.strategies import irreps, seeds


def test_accepts_what_is_equivariant():
    """Known from outside: the scalar product, the cross product, an outer product and a norm."""
    dot = lambda x, y: (x * y).sum(dim=-2, keepdim=True)  # noqa: E731
    assert_equivariant(dot, ["1o", "1o"], "0e")
    assert_equivariant(lambda x, y: torch.linalg.cross(x, y, dim=-2), ["1o", "1o"], "1e")
    assert_equivariant(lambda x: x * x.norm(dim=-2, keepdim=True), ["2e"], "2e", batch=())
    assert_equivariant(lambda x, y: (x, dot(x, y)), ["1o", "1e"], ["1o", "0o"], channels=(3, 1))


@pytest.mark.parametrize(
    ("function", "inputs", "output"),
    [
        (lambda x: x + 1, "1o", "1o"),
        (lambda x: x + 1, "0o", "0o"),  # a random rotation *or* mirror image would miss this half of the time
        (lambda x: x.abs(), "1o", "1o"),
        (lambda x: x.flip(-2), "1o", "1o"),
        (lambda x: x, "1o", "1e"),
        (lambda x: x * torch.tensor([1.0, 1.0, 1.0 + 1e-7])[:, None].double(), "1o", "1o"),
        (lambda x: x * float("nan"), "0e", "0e"),
    ],
)
def test_the_check_can_fail(function, inputs, output):
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(function, [inputs], output)


def test_asks_for_rotations_only_where_there_is_no_parity():
    cross = lambda x, y: torch.linalg.cross(x, y, dim=-2)  # noqa: E731
    assert_equivariant(cross, ["1", "1"], "1")
    assert_equivariant(cross, ["1o", "1o"], "1")
    assert equivariance_error(cross, ["1o", "1o"], "1o") > 0.1


def test_names_the_worst_row():
    def shift(x):
        return x + torch.tensor([0.0, 0.0, 0.0, 1.0])[:, None]

    with pytest.raises(AssertionError, match=r"row 3 of 1x1o\+1x0o is off by \d\.\d\de"):
        assert_equivariant(shift, ["1o+0o"], "1o+0o")


def test_says_nothing_about_empty_features():
    assert_equivariant(lambda x: x, ["1o"], "1o", batch=(0,))
    assert_equivariant(lambda x: x[..., :0, :], ["1o"], "")


@given(irreps, seeds)
def test_transforms_features(rep, seed):
    generator = torch.Generator().manual_seed(seed)
    g, h = random_orthogonal(generator=generator), random_orthogonal(generator=generator)
    x = rep.randn(2, -1, 3, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(transform(rep, g, transform(rep, h, x)), transform(rep, g @ h, x))


@pytest.mark.parametrize(
    ("group", "form"),
    [
        ("O(3)", torch.eye(3)),
        ("O(4)", torch.eye(4)),
        ("SO(4)", torch.eye(4)),
        ("Sp(4)", symplectic_form(4)),
        ("O(1,3)", torch.diag(torch.tensor([1.0, -1, -1, -1]))),
        ("SO(2,1)", torch.diag(torch.tensor([1.0, 1, -1]))),
        ("S(5)", torch.eye(5)),
        ("A(5)", torch.eye(5)),
        ("B(4)", torch.eye(4)),
        ("Aut(5; (0 1 2 3 4), (1 4)(2 3))", torch.eye(5)),
        ("Sp(4,interleaved)", torch.block_diag(*[torch.tensor([[0.0, 1.0], [-1.0, 0.0]])] * 2)),
        ("SO(2,1) x A(4)", torch.block_diag(torch.diag(torch.tensor([1.0, 1, -1])), torch.eye(4))),
    ],
)
def test_elements_belong_to_their_group(group, form):
    elements = random_elements(group, torch.Generator().manual_seed(0))
    form = form.double()
    signs = {round(torch.linalg.det(g).item()) for g in elements}
    for g in elements:
        torch.testing.assert_close(g.T @ form @ g, form, atol=1e-10, rtol=0)
    if group[0] in "OG":
        assert signs == {1, -1}
    if group[:2] in ("SO", "Sp", "A("):
        assert signs == {1}


def test_random_rotations_are_uniform():
    generator = torch.Generator().manual_seed(0)
    mean = torch.stack([random_rotation(generator=generator) for _ in range(2000)]).mean(dim=0)
    assert mean.abs().max() < 0.06


def test_draws_irreps():
    generator = torch.Generator().manual_seed(0)
    drawn = [random_irreps(2, generator=generator) for _ in range(20)]
    assert all(rep.dim > 0 and rep.lmax <= 2 for rep in drawn)
    assert {rep.group for rep in drawn} == {"O(3)"}
    assert random_irreps(2, group="SO(3)", generator=generator).group == "SO(3)"


def test_works_for_any_representation():
    rep = DirectSum((Irreps("1o"), Irreps("0e")))
    assert_equivariant(lambda x: 2 * x, [rep], rep)


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"random_elements knows .* got 'E\(8\)'"):
        random_elements("E(8)")
    with pytest.raises(
        ValueError, match=r"1x1o has features of shape \(\.\.\., 3, channels\), got \(2, 4, 5\)"
    ):
        transform("1o", torch.eye(3), torch.ones(2, 4, 5))
    with pytest.raises(ValueError, match="returned 2 tensors, expected 1"):
        assert_equivariant(lambda x: (x, x), ["1o"], "1o")
    with pytest.raises(ValueError, match="expects an even n"):
        symplectic_form(3)


def test_holds_a_layer_against_e3nn():
    nn, o3 = pytest.importorskip("e3nn.nn"), pytest.importorskip("e3nn.o3")
    ours, theirs = BatchNorm("2x0e+1o", 4), nn.BatchNorm("8x0e+4x1o")
    report = check_against(ours.eval(), theirs.eval(), batch=(5, 2), repeats=1)
    assert max(report.error, report.gradient_error) < 1e-10
    assert min(*report.forward, *report.backward) > 0
    assert [line.split(" | ")[0] for line in str(report).splitlines()[2:]] == ["| forward", "| + backward"]
    harmonics = SphericalHarmonics("0e+1o"), o3.SphericalHarmonics("0e+1o", True, "component")
    check_against(*harmonics, layout="e3nn", repeats=0)


def test_sees_where_a_layer_differs_from_e3nn():
    nn = pytest.importorskip("e3nn.nn")
    other = nn.BatchNorm("8x0e+4x1o", eps=1e-3)
    with pytest.raises(AssertionError, match=r"differs from BatchNorm .* by \d.*e-0\d, its gradients"):
        check_against(BatchNorm("2x0e+1o", 4).eval(), other.eval())
    with pytest.raises(ValueError, match=r"finds no irreps_in, .*; give inputs"):
        check_against(torch.nn.ReLU(), torch.nn.ReLU())
    with pytest.raises(ValueError, match=r"expects layout to be rows or e3nn, got 'flat'"):
        check_against(other, other, layout="flat")
