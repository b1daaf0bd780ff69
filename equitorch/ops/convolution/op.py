"""``convolution`` as layers call it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from equitorch.ops.convolution.reference import RESULT, WEIGHT_TYPES, fake, projected_fake
from equitorch.ops.convolution.reference import convolution as reference
from equitorch.ops.convolution.reference import projected_convolution as projected_reference
from equitorch.ops.edges import EdgePlan, walks
from equitorch.ops.multilinear import Kernel, Multilinear


def _cpu() -> Kernel:
    from equitorch.ops.convolution.cpu import convolution as kernel  # imports Numba

    return kernel


def _projected_cpu() -> Kernel:
    from equitorch.ops.convolution.cpu import projected_convolution as kernel  # imports Numba

    return kernel


def _cuda() -> Kernel:
    from equitorch.ops.convolution.triton import convolution as kernel  # imports Triton

    return kernel


def _projected_cuda() -> Kernel:
    from equitorch.ops.convolution.triton import projected_convolution as kernel  # imports Triton

    return kernel


_convolution = Multilinear("convolution", reference=reference, fake=fake, cpu=_cpu, cuda=_cuda, half=True)
_projected = Multilinear(
    "projected_convolution",
    reference=projected_reference,
    fake=projected_fake,
    cpu=_projected_cpu,
    cuda=_projected_cuda,
    half=True,
)


def convolution(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    edges: Tensor | EdgePlan,
    form: Sequence[Tensor],
    dims: tuple[int, int, int, int],
    *,
    projection: Tensor | None = None,
    name: int = 0,
) -> Tensor:
    r"""Couple each neighbour's features with the filter of its edge, weigh every path, sum at the receiver.

    .. math::
        g_{i k c} = \sum_{e: j \to i} \sum_p w_{e p c} \sum_{i' j'} T^p_{i' j' k} \, x_{j i' c} \, y_{e j'}

    Only the operands are kept for the backward pass, and no message is ever stored. Nor are the weights, if
    they are given by fewer numbers: :math:`w_{e p c} = \sum_h v_{e h} \, P_{h p c}`.

    Args:
        x: features of the nodes.
        y: filters of the edges, without channels.
        weight: w of each edge, or of each undirected pair of an ``EdgePlan``; or v, with ``projection``.
            w may be of half precision (bfloat16, float16) beside wider x and y.
        edges: source and target of each edge, in any order, or their plan.
        form: ``form_lists`` of the coupling T and of the one with its first and last slots exchanged.
        dims: rows of x, of y and of the result, and number of paths.
        projection: P, the last layer of a radial network.
        name: ``form_name`` of ``form``. Without it a GPU waits at every call, for the form to be read.

    Shape:
        x: (nodes, I, channels), y: (edges, J), weight: (edges, paths, channels) or (edges, H),
        edges: (2, edges), projection: (H, paths, channels) -> (nodes, K, channels)

    Raises:
        ValueError: if the operands do not belong together.
    """
    walk = edges.walks() if isinstance(edges, EdgePlan) else walks(edges, x.shape[0])
    _check(x, y, weight, walk, dims, projection)
    sizes = [*dims, WEIGHT_TYPES.index(weight.dtype), name]
    if projection is None:
        return _convolution(RESULT, [x, y, weight], [*walk, *form], sizes)
    return _projected(RESULT + 1, [x, y, weight, projection], [*walk, *form], sizes)


def _check(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    walk: list[Tensor],
    dims: tuple[int, int, int, int],
    projection: Tensor | None,
) -> None:
    edges, nodes, pairs = walk[0].shape[0], walk[2].shape[0] - 1, walk[7].shape[0]
    latent = weight.shape[-1]
    expected: dict[str, tuple[int, ...]] = {"x": (nodes, dims[0], x.shape[-1]), "y": (edges, dims[1])}
    given = {"x": x, "y": y, "weight": weight}
    expected["weight"] = (pairs, dims[3], x.shape[-1]) if projection is None else (pairs, latent)
    if projection is not None:
        given["projection"], expected["projection"] = projection, (latent, dims[3], x.shape[-1])
    for name, shape in expected.items():
        if tuple(given[name].shape) != shape:
            raise ValueError(
                f"a convolution of {nodes} nodes along {edges} edges expects {name} of shape {shape}, "
                f"got {tuple(given[name].shape)}"
            )
    if projection is None and weight.dtype in WEIGHT_TYPES[2:]:
        given.pop("weight")
    types = {t.dtype for t in given.values()}
    if len(types) > 1 or x.dtype not in WEIGHT_TYPES:
        raise ValueError(
            "a convolution expects operands of one floating point type (only weight may be of half precision "
            f"beside others), got {', '.join(f'{name} {t.dtype}' for name, t in given.items())}"
        )
