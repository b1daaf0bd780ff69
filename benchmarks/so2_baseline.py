"""The convolution of published eSCN code as anyone would write it in PyTorch, and one of e3nn."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor, nn

from equitorch.ops.rotate import edge_frames
from equitorch.reps.order import order_index, order_rows, order_sizes
from equitorch.reps.wigner import wigner_D_all


class DenseRotation:
    """Block-diagonal (L + 1)^2 matrices of all edges, with zeros, and their inverses; made once a step."""

    def __init__(self, vectors: Tensor, lmax: int, mmax: int) -> None:
        rows = (lmax + 1) ** 2
        self.matrix = vectors.new_zeros(vectors.shape[0], rows, rows)
        for l, block in enumerate(wigner_D_all(lmax, edge_frames(vectors))):
            self.matrix[:, l * l : (l + 1) ** 2, l * l : (l + 1) ** 2] = block
        self.inverse = self.matrix.mT.contiguous()
        self.mask = order_index(lmax, mmax).sort().values

    def into(self, x: Tensor) -> Tensor:
        """Features of each edge to rows |m| <= M, degree-major."""
        return torch.bmm(self.matrix[:, self.mask], x)

    def back(self, m: Tensor) -> Tensor:
        return torch.bmm(self.inverse[:, :, self.mask], m)


class BaselineConvolution(nn.Module):
    """Linear layers for each order: m = 0 with a bias, the others on both halves, then recombined."""

    def __init__(self, lmax: int, mmax: int, channels_in: int, channels_out: int, extra: int = 0) -> None:
        super().__init__()
        self.sizes, self.extra, self.channels = order_sizes(lmax, mmax), extra, (channels_in, channels_out)
        self.m0 = nn.Linear(self.sizes[0] * channels_in, extra + self.sizes[0] * channels_out)
        self.fc = nn.ModuleList(
            nn.Linear(k * channels_in, 2 * k * channels_out, bias=False) for k in self.sizes[1:]
        )
        index = order_index(lmax, mmax)
        to_m = (index[:, None] == index.sort().values).to(torch.get_default_dtype())
        self.register_buffer("to_m", to_m, persistent=False)

    def forward(self, x: Tensor, radial: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Messages (edges, rows, channels), degree-major; radial weights (edges, (m, l, channel))."""
        edges, (channels_in, channels_out) = x.shape[0], self.channels
        x = torch.einsum("nac,ba->nbc", x, self.to_m)
        row, start, parts = 0, 0, []
        for m, k in enumerate(self.sizes):
            weight = None if radial is None else radial[:, start : start + k * channels_in]
            start += k * channels_in
            if m == 0:
                first = x[:, :k].reshape(edges, -1)
                out = self.m0(first if weight is None else first * weight)
                extra, out = out.split([self.extra, k * channels_out], dim=1)
                parts.append(out.view(edges, k, channels_out))
                row += k
                continue
            both = x[:, row : row + 2 * k].reshape(edges, 2, -1)
            both = both if weight is None else both * weight.view(edges, 1, -1)
            real, imag = self.fc[m - 1](both).split(k * channels_out, dim=2)
            plus, minus = real[:, 0] - imag[:, 1], real[:, 1] + imag[:, 0]
            parts += [plus.view(edges, k, channels_out), minus.view(edges, k, channels_out)]
            row += 2 * k
        return torch.einsum("nac,ab->nbc", torch.cat(parts, dim=1), self.to_m), extra


def baseline(
    x: Tensor, radial: Tensor, edge_index: Tensor, rotation: DenseRotation, conv: BaselineConvolution
) -> Tensor:
    """Gather, rotate, convolve, rotate back, sum."""
    source, target = edge_index
    message, _ = conv(rotation.into(x[source]), radial)
    back = rotation.back(message)
    return back.new_zeros(x.shape[0], *back.shape[1:]).index_add_(0, target, back)


class DepthwiseConvolution(nn.Module):
    """e3nn's tensor product with the edge's harmonics, a weight for each path and channel, and a Linear."""

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        degrees = range(lmax + 1)
        features = o3.Irreps([(channels, (l, (-1) ** l)) for l in degrees])
        self.filters = o3.Irreps.spherical_harmonics(lmax)
        middle, instructions = [], []
        for i in degrees:
            for j in degrees:
                for k in range(abs(i - j), min(i + j, lmax) + 1):
                    if (i + j + k) % 2 == 0:
                        instructions.append((i, j, len(middle), "uvu", True))
                        middle.append((channels, (k, (-1) ** k)))
        irreps, order, _ = o3.Irreps(middle).sort()
        instructions = [(i, j, order[k], mode, weighted) for i, j, k, mode, weighted in instructions]
        self.product = o3.TensorProduct(
            features, self.filters, irreps, instructions, shared_weights=False, internal_weights=False
        )
        self.linear = o3.Linear(irreps.simplify(), features)
        self.irreps = features

    def forward(self, x: Tensor, harmonics: Tensor, weight: Tensor, edge_index: Tensor) -> Tensor:
        """Gather, multiply, mix, sum."""
        message = self.linear(self.product(x[edge_index[0]], harmonics, weight))
        return message.new_zeros(x.shape[0], message.shape[1]).index_add_(0, edge_index[1], message)


def load(theirs: BaselineConvolution, ours: nn.Module) -> None:
    """Give the baseline the weights of an ``SO2Convolution`` of parity "so3"."""
    with torch.no_grad():
        theirs.m0.weight.copy_(ours.m0.weight)
        theirs.m0.bias.copy_(ours.m0.bias)
        for fc, real, imag in zip(theirs.fc, ours.real, ours.imag, strict=True):
            fc.weight.copy_(torch.cat([real, imag]))


def radial_size(lmax: int, mmax: int) -> int:
    """Radial weights of each edge and channel."""
    return sum(1 for _, m in order_rows(lmax, mmax) if m >= 0)
