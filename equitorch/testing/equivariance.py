"""Whether a function is equivariant, by random elements of its group."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from equitorch.reps.irreps import Irrep, Irreps
from equitorch.reps.matrix_groups import MatrixGroup
from equitorch.reps.rep import Rep, common_group
from equitorch.reps.tensor_power import TensorPower

_GENERAL_LINEAR = re.compile(r"GL\((\d+)\)")


def assert_equivariant(
    function: Callable[..., Any],
    inputs: Sequence[Rep | str],
    output: Rep | str | Sequence[Rep | str],
    *,
    channels: int | Sequence[int] = 4,
    batch: tuple[int, ...] = (5,),
    seed: int = 0,
    atol: float = 1e-9,
    device: torch.device | str = "cpu",
) -> None:
    r"""Require f(g x) == g f(x), for a random element g of every component of the group.

    For O(3) that is a random rotation and its mirror image, both; with a random one of the two, a bias on a
    pseudoscalar would pass unseen. Where O(3) and SO(3) meet, only rotations are asked for. Runs in float64,
    so ``atol`` bounds round-off and never approximation.

    Args:
        function: takes a tensor of shape (\*batch, rep.dim, channels) for each input; returns such a tensor,
            or as many as there are outputs.
        inputs: how each argument transforms: representations, or irreps as a string.
        output: how the result transforms; a list if ``function`` returns several tensors.
        channels: the last axis of the inputs, one number or one for each.
        batch: the leading axes.
        seed: of the random inputs and elements.
        atol: the largest error allowed, relative to max(1, largest component of the result).
        device: where the function runs.

    Raises:
        AssertionError: naming the worst row of the output.

    >>> assert_equivariant(lambda x: x / (1 + x.square().sum(dim=-2, keepdim=True)), ["1o"], "1o")
    """
    error, row, rep = _worst(function, inputs, output, channels, batch, seed, device)
    if not error <= atol:  # a NaN must fail
        raise AssertionError(f"row {row} of {rep} is off by {error:.2e} (atol {atol:.0e})")


def equivariance_error(
    function: Callable[..., Any],
    inputs: Sequence[Rep | str],
    output: Rep | str | Sequence[Rep | str],
    *,
    channels: int | Sequence[int] = 4,
    batch: tuple[int, ...] = (5,),
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> float:
    """The largest deviation that ``assert_equivariant`` looks at, as a number; the arguments are the same.

    >>> equivariance_error(lambda x: x + 1, ["1o"], "1o") > 0.1
    True
    """
    return _worst(function, inputs, output, channels, batch, seed, device)[0]


def transform(rep: Rep | str, g: Tensor, x: Tensor) -> Tensor:
    """Let a group element act on a feature: rows of shape (..., rep.dim, channels).

    Args:
        rep: the representation.
        g: the element, as a matrix of the group's defining space, e.g. (3, 3).
        x: the feature. Shape (..., rep.dim, channels).

    >>> transform("1o", -torch.eye(3), torch.ones(3, 1)).flatten()
    tensor([-1., -1., -1.])
    """
    rep = _as_rep(rep)
    if x.ndim < 2 or x.shape[-2] != rep.dim:
        raise ValueError(f"{rep} has features of shape (..., {rep.dim}, channels), got {tuple(x.shape)}")
    return rep.act(g, x) if isinstance(rep, TensorPower) else rep.matrix(g.to(x)) @ x


def random_elements(group: str, generator: torch.Generator | None = None) -> list[Tensor]:
    """A random element of every connected component of a group, as matrices of its defining space, float64.

    Knows O(n), SO(n), O(p,q), SO(p,q), Sp(n) and GL(n); of finite groups three elements: of S(n), A(n), the
    signed permutations B(n) and any ``Automorphism``. Of a product "S(5) x O(3)", block diagonal matrices:
    each element of one factor beside each of the other.

    Raises:
        ValueError: if the symbol of the group is not known.

    >>> [round(torch.linalg.det(g).item()) for g in random_elements("O(3)", torch.Generator().manual_seed(0))]
    [1, -1]
    """
    if " x " in group:
        factors = [random_elements(factor, generator) for factor in group.split(" x ")]
        return [torch.block_diag(*elements) for elements in itertools.product(*factors)]
    general_linear = _GENERAL_LINEAR.fullmatch(group)
    if general_linear is not None:
        n = int(general_linear[1])
        proper = torch.matrix_exp(0.5 * _randn(n, n, generator=generator))
        return [proper, proper * _reflection(n, 0)]
    try:
        known = MatrixGroup.of_symbol(group)
    except ValueError:
        raise ValueError(
            "random_elements knows O(n), SO(n), O(p,q), SO(p,q), Sp(n), GL(n), S(n), A(n), B(n) "
            f"and Aut(n; permutations), got {group!r}"
        ) from None
    if known.family in ("S", "A", "B", "Aut"):
        return [_random_monomial(known, generator) for _ in range(3)]
    return _random_of_components(known, generator)


def random_rotation(n: int = 3, *, generator: torch.Generator | None = None) -> Tensor:
    """A Haar-random rotation of n dimensions: orthogonal, determinant 1. Shape (n, n), float64."""
    q = random_orthogonal(n, generator=generator)
    return torch.cat([q[:, :1] * torch.linalg.det(q).sign(), q[:, 1:]], dim=1)


def random_orthogonal(n: int = 3, *, generator: torch.Generator | None = None) -> Tensor:
    """A Haar-random orthogonal matrix, mirrored half of the time. Shape (n, n), float64."""
    q, r = torch.linalg.qr(_randn(n, n, generator=generator))
    return q * r.diagonal().sign()


def random_irreps(
    lmax: int = 3,
    *,
    entries: int = 4,
    max_mul: int = 3,
    group: str = "O(3)",
    generator: torch.Generator | None = None,
) -> Irreps:
    """Irreps with random degrees up to ``lmax``, parities and multiplicities, zero multiplicities among them.

    >>> random_irreps(2, generator=torch.Generator().manual_seed(0)).lmax <= 2
    True
    """
    drawn = []
    for _ in range(entries):
        l, mul, p = (
            int(torch.randint(n, (), generator=generator, device="cpu")) for n in (lmax + 1, max_mul + 1, 2)
        )
        drawn.append((mul, Irrep(l, 0 if group == "SO(3)" else 2 * p - 1)))
    irreps = Irreps(drawn)
    return irreps if irreps.dim else irreps + Irreps([drawn[0][1]])


def symplectic_form(n: int) -> Tensor:
    """The form that Sp(n) leaves alone: blocks (0, 1; -1, 0) of size n / 2. Shape (n, n), float64."""
    if n % 2:
        raise ValueError(f"Sp(n) expects an even n, got {n}")
    one = torch.eye(n // 2, dtype=torch.float64, device="cpu")
    zero = torch.zeros_like(one)
    return torch.cat([torch.cat([zero, one], dim=1), torch.cat([-one, zero], dim=1)])


def _worst(
    function: Callable[..., Any],
    inputs: Sequence[Rep | str],
    output: Rep | str | Sequence[Rep | str],
    channels: int | Sequence[int],
    batch: tuple[int, ...],
    seed: int,
    device: torch.device | str,
) -> tuple[float, int, Rep]:
    reps = [_as_rep(rep) for rep in inputs]
    outputs = [_as_rep(rep) for rep in ([output] if isinstance(output, (str, Rep)) else output)]
    generator = torch.Generator().manual_seed(seed)
    elements = random_elements(_shared_group([*reps, *outputs]), generator)
    sizes = [channels] * len(reps) if isinstance(channels, int) else list(channels)
    xs = [_randn(*batch, rep.dim, c, generator=generator) for rep, c in zip(reps, sizes, strict=True)]
    xs = [x.to(device) for x in xs]
    plain = _as_list(function(*xs), outputs)
    worst = (0.0, 0, outputs[0])
    for g in elements:
        turned = _as_list(function(*[transform(rep, g, x) for rep, x in zip(reps, xs, strict=True)]), outputs)
        for rep, before, after in zip(outputs, turned, plain, strict=True):
            expected = transform(rep, g, after)
            if not expected.numel():
                continue
            error = (before - expected).abs() / expected.abs().max().clamp(min=1)
            by_row = error.movedim(-2, 0).flatten(1).amax(dim=1)
            row = int(by_row.argmax())
            if not by_row[row].item() <= worst[0]:
                worst = (by_row[row].item(), row, rep)
    return worst


def _as_list(result: Any, outputs: Sequence[Rep]) -> list[Tensor]:
    tensors = [result] if isinstance(result, Tensor) else list(result)
    if len(tensors) != len(outputs):
        raise ValueError(
            f"the function returned {len(tensors)} tensors, expected {len(outputs)}: {list(outputs)}"
        )
    return tensors


def _as_rep(rep: Rep | str) -> Rep:
    return Irreps(rep) if isinstance(rep, str) else rep


def _shared_group(reps: Sequence[Rep]) -> str:
    """The group of all, or SO(3) where its features meet those of O(3); empty irreps have no opinion."""
    decided = [rep for rep in reps if rep.dim] or list(reps)[:1]
    groups = {rep.group for rep in decided}
    return "SO(3)" if groups == {"O(3)", "SO(3)"} else common_group(decided)


def _reflection(n: int, axis: int) -> Tensor:
    """A factor for the columns of a matrix that mirrors one axis."""
    sign = torch.ones(n, dtype=torch.float64, device="cpu")
    sign[axis] = -1
    return sign


def _random_of_components(group: MatrixGroup, generator: torch.Generator | None) -> list[Tensor]:
    n, p = group.n, group.n - group.negative
    if group.family == "Sp":
        return [_random_exponential(group.form, 1, generator)]
    if group.negative:
        near = _random_exponential(group.form, -1, generator)
        signs = [_reflection(n, 0), _reflection(n, p), _reflection(n, 0) * _reflection(n, p)]
        kept = signs if group.family == "O" else signs[2:]
        return [near] + [near * sign for sign in kept]
    rotation = random_rotation(n, generator=generator)
    if group.family == "SO":
        return [rotation]
    return [rotation, -rotation if n % 2 else rotation * _reflection(n, 0)]


def _random_monomial(group: MatrixGroup, generator: torch.Generator | None) -> Tensor:
    """A random permutation matrix, with signs for signed permutations."""
    n = group.n
    one = torch.eye(n, dtype=torch.float64, device="cpu")
    if group.permutations is not None:
        places = torch.rand(n, generator=generator, dtype=torch.float64, device="cpu")
        return one[:, list(group.permutations.random(places.tolist()))]
    matrix = one[torch.randperm(n, generator=generator, device="cpu")]
    if group.family == "A" and n > 1 and torch.linalg.det(matrix) < 0:
        matrix = matrix[[1, 0, *range(2, n)]]
    if group.family == "B":
        matrix = matrix * (2.0 * torch.randint(2, (n,), generator=generator, device="cpu") - 1)
    return matrix


def _random_exponential(form: Tensor, sign: int, generator: torch.Generator | None) -> Tensor:
    """A moderate element of the group that leaves ``form`` alone: exp(A) with A^T form + form A = 0."""
    raw = 0.5 * _randn(*form.shape, generator=generator)
    return torch.matrix_exp(torch.linalg.inv(form) @ (raw + sign * raw.T))


def _randn(*size: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(*size, generator=generator, dtype=torch.float64, device="cpu")
