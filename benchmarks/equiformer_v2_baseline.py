"""EquiformerV2 as its equations read, in plain PyTorch: dense matrices for each edge, einsum for the rest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.so2_baseline import BaselineConvolution, DenseRotation
from equitorch.layers.row_grid import RowGrid
from equitorch.reps.order import order_sizes

_GAUSSIANS, _NEIGHBORS, _ATOMS, _EPS = 600, 23.395238876342773, 77.81317, 1e-5


class BaselineEquiformerV2(nn.Module):
    """Energies and forces of the published model: separable SiLU and perceptrons on grids, layer_norm_sh.

    Args:
        tensors: weights by their published names.
        lmax: highest degree.
        mmax: highest order in the frames of edges.
        resolution: latitudes and longitudes of the grids.
        cutoff: Å.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], lmax: int, mmax: int, *, resolution: int, cutoff: float
    ) -> None:
        super().__init__()
        self.lmax, self.mmax, self.cutoff = lmax, mmax, cutoff
        self.tensors = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
        dtype = self.tensors["sphere_embedding.weight"].dtype
        self.layers = sum(name.endswith(".ga.alpha_dot") for name in tensors)
        self.degree = torch.arange(lmax + 1).repeat_interleave(torch.arange(1, 2 * lmax + 2, 2))
        self.edge_grid, self.node_grid = (
            [
                grid.to_points.value.to(dtype).view(resolution, resolution, -1),
                grid.to_rows.value.to(dtype).mT.reshape(resolution, resolution, -1),
            ]
            for grid in (
                RowGrid.published(lmax, m, rows="degree", resolution=resolution) for m in (mmax, lmax)
            )
        )
        ends = [f"blocks.{k}.ga" for k in range(self.layers)] + ["force_block"]
        self.convolutions = nn.ModuleDict(
            {
                f"{end}.so2_conv_{k}".replace(".", "/"): self._convolution(f"{end}.so2_conv_{k}")
                for end in ends
                for k in (1, 2)
            }
        )

    def _convolution(self, name: str) -> BaselineConvolution:
        k, p = self.lmax + 1, self.tensors
        first, last = p[f"{name}.fc_m0.weight"], p[f"{name}.so2_m_conv.0.fc.weight"]
        channels_in, channels_out = first.shape[1] // k, last.shape[0] // (2 * (k - 1))
        extra = first.shape[0] - k * channels_out
        conv = BaselineConvolution(self.lmax, self.mmax, channels_in, channels_out, extra).to(first.dtype)
        conv.m0.load_state_dict({"weight": first, "bias": p[f"{name}.fc_m0.bias"]})
        for m, fc in enumerate(conv.fc):
            fc.load_state_dict({"weight": p[f"{name}.so2_m_conv.{m}.fc.weight"]})
        return conv

    def forward(
        self, atomic_numbers: Tensor, edge_index: Tensor, vectors: Tensor, batch: Tensor, num_graphs: int
    ) -> dict[str, Tensor]:
        """As of :class:`equitorch.models.EquiformerV2`."""
        rotation = DenseRotation(vectors, self.lmax, self.mmax)
        factor = (2.0 * self.degree + 1) / (2 * self.mmax + 1)
        factor = torch.where(self.degree > self.mmax, factor.sqrt(), 1.0).to(vectors.dtype)
        rotation.inverse = rotation.inverse * factor[:, None]
        edges = edge_index, self._gaussians(vectors), atomic_numbers
        x = self._edge_degree(rotation, *edges)
        x[:, 0] += self.tensors["sphere_embedding.weight"][atomic_numbers]
        for k in range(self.layers):
            x = x + self._attention(f"blocks.{k}.ga", self._norm(f"blocks.{k}.norm_1", x), rotation, *edges)
            x = x + self._feed_forward(f"blocks.{k}.ffn", self._norm(f"blocks.{k}.norm_2", x))
        x = self._norm("norm", x)
        node = self._feed_forward("energy_block", x)[:, 0, 0] / _ATOMS
        energy = node.new_zeros(num_graphs).index_add_(0, batch, node)
        return {
            "energy": energy,
            "forces": self._attention("force_block", x, rotation, *edges)[:, 1:4, 0],
        }

    def _gaussians(self, vectors: Tensor) -> Tensor:
        """Without subnormal numbers, which would only slow down what follows."""
        centre = torch.linspace(0, self.cutoff, _GAUSSIANS, dtype=torch.float64)
        away = (vectors.double().norm(dim=-1, keepdim=True) - centre) / (2 * (centre[1] - centre[0]))
        e = torch.exp(-0.5 * away.to(vectors.dtype) ** 2)
        return e.masked_fill(e < 1e6 * torch.finfo(e.dtype).tiny, 0.0)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def _layer_norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(
            x, x.shape[-1:], self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], _EPS
        )

    def _radial(self, where: str, name: str, edge_index: Tensor, basis: Tensor, numbers: Tensor) -> Tensor:
        ends = zip(("source", "target"), edge_index, strict=True)
        vectors = [self.tensors[f"{where}.{end}_embedding.weight"][numbers[i]] for end, i in ends]
        y = torch.cat([basis, *vectors], dim=1)
        for k in (0, 3):
            y = F.silu(self._layer_norm(f"{name}.net.{k + 1}", self._linear(f"{name}.net.{k}", y)))
        return self._linear(f"{name}.net.6", y)

    def _edge_degree(
        self, rotation: DenseRotation, edge_index: Tensor, basis: Tensor, numbers: Tensor
    ) -> Tensor:
        name = "edge_degree_embedding"
        weight = self._radial(name, f"{name}.rad_func", edge_index, basis, numbers)
        rows = weight.view(basis.shape[0], self.lmax + 1, -1)
        kept = order_sizes(self.lmax, self.mmax)
        rest = rows.new_zeros(rows.shape[0], 2 * sum(kept[1:]), rows.shape[2])
        to_m = next(iter(self.convolutions.values())).to_m
        rows = torch.einsum("nac,ab->nbc", torch.cat([rows, rest], dim=1), to_m)
        return self._summed(rotation.back(rows), edge_index, numbers) / _NEIGHBORS

    def _summed(self, back: Tensor, edge_index: Tensor, numbers: Tensor) -> Tensor:
        return back.new_zeros(numbers.shape[0], *back.shape[1:]).index_add_(0, edge_index[1], back)

    def _attention(
        self,
        name: str,
        x: Tensor,
        rotation: DenseRotation,
        edge_index: Tensor,
        basis: Tensor,
        numbers: Tensor,
    ) -> Tensor:
        heads, per_head = self.tensors[f"{name}.alpha_dot"].shape[-2:]
        conv1, conv2 = (self.convolutions[f"{name}.so2_conv_{k}".replace(".", "/")] for k in (1, 2))
        source, target = edge_index
        message = rotation.into(torch.cat([x[source], x[target]], dim=2))
        radial = self._radial(name, f"{name}.so2_conv_1.rad_func", edge_index, basis, numbers)
        message, extra = conv1(message, radial)
        scores, scalars = extra.split([heads * per_head, message.shape[2]], dim=1)
        to_points, to_rows = self.edge_grid
        values = F.silu(torch.einsum("bai,zic->zbac", to_points, message))
        message = torch.einsum("bai,zbac->zic", to_rows, values)
        message = torch.cat([F.silu(scalars).unsqueeze(1), message[:, 1:]], dim=1)
        message, _ = conv2(message)
        alpha = self._alpha(name, scores.view(-1, heads, per_head), target, numbers.shape[0])
        message = message.view(*message.shape[:2], heads, -1) * alpha[:, None, :, None]
        back = rotation.back(message.flatten(2))
        return self._so3_linear(f"{name}.proj", self._summed(back, edge_index, numbers))

    def _alpha(self, name: str, f: Tensor, target: Tensor, nodes: int) -> Tensor:
        f = self._layer_norm(f"{name}.alpha_norm", f)
        f = 0.6 * f + 0.4 * f * (2 * torch.sigmoid(f) - 1)
        score = torch.einsum("bik,ik->bi", f, self.tensors[f"{name}.alpha_dot"])
        index = target[:, None].expand_as(score)
        most = score.new_full((nodes, score.shape[1]), -torch.inf).scatter_reduce(0, index, score, "amax")
        weight = torch.exp(score - most[target])
        return weight / (score.new_zeros(most.shape).index_add_(0, target, weight)[target] + 1e-16)

    def _so3_linear(self, name: str, x: Tensor) -> Tensor:
        y = torch.einsum("bmi,moi->bmo", x, self.tensors[f"{name}.weight"][self.degree])
        y[:, 0] += self.tensors[f"{name}.bias"]
        return y

    def _feed_forward(self, name: str, x: Tensor) -> Tensor:
        scalars = F.silu(self._linear(f"{name}.scalar_mlp.0", x[:, 0]))
        to_points, to_rows = self.node_grid
        y = torch.einsum("bai,zic->zbac", to_points, self._so3_linear(f"{name}.so3_linear_1", x))
        for k in (0, 2):
            y = F.silu(self._linear(f"{name}.grid_mlp.{k}", y))
        y = torch.einsum("bai,zbac->zic", to_rows, self._linear(f"{name}.grid_mlp.4", y))
        return self._so3_linear(f"{name}.so3_linear_2", torch.cat([scalars.unsqueeze(1), y[:, 1:]], dim=1))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        balance = 1 / (self.lmax * (2.0 * self.degree[1:] + 1)).to(x.dtype)
        square = torch.einsum("nic,i->nc", x[:, 1:].square(), balance).mean(dim=1)
        scale = (square + _EPS).rsqrt()[:, None, None]
        weight = self.tensors[f"{name}.affine_weight"][self.degree[1:] - 1]
        return torch.cat(
            [self._layer_norm(f"{name}.norm_l0", x[:, 0]).unsqueeze(1), x[:, 1:] * scale * weight], dim=1
        )
