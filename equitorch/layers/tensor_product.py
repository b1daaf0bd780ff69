"""The tensor product of two features along chosen paths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equitorch.layers.instructions import normalized, read_instructions
from equitorch.layers.product_call import ProductCall
from equitorch.layers.product_layout import Operand, Views, assembled, flat_from_rows
from equitorch.layers.product_plan import make_plan
from equitorch.reps import Irreps, common_channels

Weights = Tensor | Sequence[Tensor] | None
Variance = Iterable[float] | Tensor | None


class TensorProduct(nn.Module):
    r"""The tensor product of two features along chosen paths, with learned weights.

    .. math:: z^{(o)}_{w k} = \sum_{p \to o} f_p \sum_{u v} W^{(p)}_{u v w} \sum_{i j} C_{ijk} \,
        x_{u i} \, y_{v j}

    where C is the unit-norm 3j symbol, f_p the factor of the path, and a mode such as ``uvu`` says which of
    the multiplicities u, v, w are one and the same. Names, arguments, numbers and the order of the weights
    are those of ``e3nn.o3.TensorProduct``.

    Args:
        irreps_in1: of the first operand, multiplicities included.
        irreps_in2: of the second operand.
        irreps_out: of the result; blocks that no path reaches are zero.
        instructions: paths (i_in1, i_in2, i_out, mode, has_weight[, path_weight]) between blocks; modes are
            uvw, uvu, uvv, uuw, uuu, uvuv, uvu<v and u<vw.
        in1_var: variance of each block of the first operand; 1 if not given.
        in2_var: variance of each block of the second operand.
        out_var: variance that each block of the result shall have.
        irrep_normalization: "component" (default), "norm" or "none": what is of order one in an irrep.
        path_normalization: "element" (default): all terms of a block count alike; "path": all paths; "none".
        internal_weights: own the weights as the parameter ``weight``; by default where there are any and
            they are shared.
        shared_weights: one set of weights for all points (default), or one for each.
        layout: "rows": a feature is (..., rows, channels), where the channels are the greatest common divisor
            of the multiplicities of that feature; "e3nn": it is (..., irreps.dim).

    Shape:
        x: (..., rows_of(irreps_in1).dim, common_channels(irreps_in1)), y the same with ``irreps_in2``
        -> (..., rows_of(irreps_out).dim, common_channels(irreps_out)).
        With layout "e3nn" (..., irreps_in1.dim), (..., irreps_in2.dim) -> (..., irreps_out.dim).
        weight: (weight_numel,), or (..., weight_numel) if not shared; or a list of the weights of each path.
        Leading axes broadcast.

    Raises:
        ValueError: if instructions and irreps do not belong together, or shapes do not fit.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453 (e3nn); conventions as in e3nn 0.6.

    >>> product = TensorProduct("16x1o", "16x1o", "16x1e", [(0, 0, 0, "uuu", False)])  # 16 cross products
    >>> product(torch.randn(10, 3, 16), torch.randn(10, 3, 16)).shape
    torch.Size([10, 3, 16])
    """

    weight: Tensor | None

    def __init__(
        self,
        irreps_in1: Irreps | str,
        irreps_in2: Irreps | str,
        irreps_out: Irreps | str,
        instructions: Iterable[Sequence[Any]],
        in1_var: Variance = None,
        in2_var: Variance = None,
        out_var: Variance = None,
        irrep_normalization: str | None = None,
        path_normalization: str | None = None,
        internal_weights: bool | None = None,
        shared_weights: bool | None = None,
        *,
        layout: str = "rows",
    ) -> None:
        super().__init__()
        if layout not in ("rows", "e3nn"):
            raise ValueError(f"{self._name} expects layout of rows or e3nn, got {layout!r}")
        self.irreps_in1, self.irreps_in2, self.irreps_out = irreps = (
            Irreps(irreps_in1),
            Irreps(irreps_in2),
            Irreps(irreps_out),
        )
        self.layout = layout
        self.irrep_normalization = irrep_normalization or "component"
        self.path_normalization = path_normalization or "element"
        variances = [
            _variances(self._name, name, given, own)
            for name, given, own in zip(
                ("in1", "in2", "out"), (in1_var, in2_var, out_var), irreps, strict=True
            )
        ]
        self.instructions = normalized(
            irreps,
            read_instructions(irreps, instructions),
            (variances[0], variances[1], variances[2]),
            self.irrep_normalization,
            self.path_normalization,
        )
        self._own_weights(internal_weights, shared_weights)
        self._prepare()

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _own_weights(self, internal: bool | None, shared: bool | None) -> None:
        """Decide who holds the weights, as e3nn does."""
        if internal and shared is False:
            raise ValueError(
                f"{self._name} cannot own weights that differ from point to point: internal_weights=True "
                "expects shared_weights=True"
            )
        self.shared_weights = shared is not False
        self.weight_numel = sum(path.weights for path in self.instructions)
        weighted = any(path.has_weight for path in self.instructions)
        self.internal_weights = (self.shared_weights and weighted) if internal is None else internal
        owned = self.internal_weights and self.weight_numel > 0
        self.register_parameter("weight", nn.Parameter(torch.empty(self.weight_numel)) if owned else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights from N(0, 1)."""
        if self.weight is not None:
            nn.init.normal_(self.weight)

    def _prepare(self) -> None:
        flat = self.layout == "e3nn"
        irreps = self.irreps_in1, self.irreps_in2, self.irreps_out
        self._operands = tuple(Operand(own, 0 if flat else common_channels(own)) for own in irreps)
        plan = make_plan(self._operands[:2], irreps, self.instructions, shared=self.shared_weights)
        shapes = [path.path_shape for path in self.instructions]
        calls = [ProductCall(call, shapes) for call in plan]
        self.calls = nn.ModuleList(calls)
        self._whole = len(calls) == 1 and calls[0].gives(self._operands[2])
        self._shapes = [own.shape for own in self._operands[:2]]
        self._sizes = [path.weights for path in self.instructions]

    def forward(self, x: Tensor, y: Tensor, weight: Weights = None) -> Tensor:
        w = self._flat_weight(weight)
        self._check(x, y, w)
        axes = 1 if self.layout == "e3nn" else 2
        batches = [x.shape[:-axes], y.shape[:-axes]]
        if w is not None and not self.shared_weights:
            batches.append(w.shape[:-1])
        batch = batches[0]
        if any(other != batch for other in batches):
            batch = self._broadcast(batches)
            x, y = (t.expand(*batch, *t.shape[t.ndim - axes :]) for t in (x, y))
            w = w if len(batches) < 3 or w is None else w.expand(*batch, self.weight_numel)
        if len(batch) == 1:
            return self._product(x, y, w)
        points = math.prod(batch)
        x, y = (t.reshape(points, *t.shape[t.ndim - axes :]) for t in (x, y))
        w = w if len(batches) < 3 or w is None else w.reshape(points, self.weight_numel)
        out = self._product(x, y, w)
        return out.reshape(*batch, *out.shape[1:])

    def _broadcast(self, batches: list[torch.Size]) -> torch.Size:
        try:
            return torch.broadcast_shapes(*batches)
        except RuntimeError as error:
            given = " and ".join(str(tuple(batch)) for batch in batches)
            raise ValueError(f"{self} expects leading axes that broadcast, got {given}") from error

    def _check(self, x: Tensor, y: Tensor, w: Tensor | None) -> None:
        for name, t, wanted in zip("xy", (x, y), self._shapes, strict=True):
            if t.shape[-len(wanted) :] != wanted:
                sizes = ", ".join(map(str, wanted))
                raise ValueError(f"{self} expects {name} of shape (..., {sizes}), got {tuple(t.shape)}")
        if w is not None and not x.dtype == y.dtype == w.dtype:
            self._check_types(x, y, w)

    def _check_types(self, x: Tensor, y: Tensor, w: Tensor) -> None:
        half = not self.shared_weights and w.dtype in (torch.bfloat16, torch.float16)  # beside wider operands
        if torch.is_autocast_enabled(x.device.type) or (half and x.dtype == y.dtype):
            return
        raise ValueError(
            f"{self} expects x, y and weight of one dtype, got {x.dtype}, {y.dtype} and {w.dtype}; "
            "convert the features, or the module with .to(dtype)"
        )

    def _flat_weight(self, weight: Weights) -> Tensor | None:
        if weight is None or (not isinstance(weight, Tensor) and not len(weight)):
            if self.weight_numel and self.weight is None:
                raise ValueError(
                    f"{self} does not own its weights and expects weight as an argument, got none"
                )
            return self.weight
        if not isinstance(weight, Tensor):
            weight = self._joined(weight)
        if weight.shape[-1:] != (self.weight_numel,) or (self.shared_weights and weight.ndim != 1):
            shape = f"({self.weight_numel},)" if self.shared_weights else f"(..., {self.weight_numel})"
            raise ValueError(f"{self} expects weight of shape {shape}, got {tuple(weight.shape)}")
        return weight

    def _joined(self, weights: Sequence[Tensor]) -> Tensor:
        shapes = [path.path_shape for path in self.instructions if path.has_weight]
        if len(weights) != len(shapes):
            raise ValueError(f"{self} expects weights of {len(shapes)} paths, got {len(weights)}")
        flat = []
        for w, shape in zip(weights, shapes, strict=True):
            batch = w.shape[: w.ndim - len(shape)] if w.shape[w.ndim - len(shape) :] == shape else (-1,)
            flat.append(
                w.reshape(math.prod(shape)) if self.shared_weights else w.reshape(*batch, math.prod(shape))
            )
        return torch.cat(flat, dim=-1)

    def weight_view_for_instruction(self, instruction: int, weight: Weights = None) -> Tensor:
        """The weights of one path, in its ``path_shape``: a view of the module's own, or of ``weight``.

        Raises:
            ValueError: if the path has no weights.
        """
        path = self.instructions[instruction]
        flat = self._flat_weight(weight)
        if not path.has_weight or flat is None:
            raise ValueError(f"instruction {instruction} of {self} has no weights")
        before = sum(self._sizes[:instruction])
        return flat.narrow(-1, before, path.weights).unflatten(-1, path.path_shape)

    def weight_views(self, weight: Weights = None, yield_instruction: bool = False) -> Iterator[Any]:
        """The weights of each path that has any; with ``yield_instruction`` after its number and itself."""
        for n, path in enumerate(self.instructions):
            if path.has_weight:
                view = self.weight_view_for_instruction(n, weight)
                yield (n, path, view) if yield_instruction else view

    def _product(self, x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        weights = () if weight is None else weight.split(self._sizes, dim=-1)
        one, two, own = self._operands
        views = Views(x, one), Views(y, two)
        if self._whole:
            z = self.calls[0](views, weights)
            return z if own.channels else flat_from_rows(z, own.irreps)
        sums: list[Tensor | None] = [None] * len(own.irreps)
        for call in self.calls:
            terms = call.terms(call(views, weights), weights)  # type: ignore[operator]
            for block, term in terms:
                before = sums[block]
                sums[block] = term if before is None else before + term
        out = assembled(sums, own, x)
        # Without any path nothing depends on the operands: derivatives are zero, not missing.
        return out if len(self.calls) else out + x.flatten()[:0].sum() + y.flatten()[:0].sum()

    def __repr__(self) -> str:
        paths = sum(math.prod(path.path_shape) for path in self.instructions)
        return (
            f"{self._name}({self._title()} | {paths} paths | {self.weight_numel} weights | {self._rules()})"
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Also take a state of e3nn's module: its constants, and its empty weight, are left aside."""
        foreign = f"{prefix}output_mask", f"{prefix}_compiled_"
        none = f"{prefix}weight" if self.weight is None else ""
        for key in [key for key in state_dict if key.startswith(foreign)]:
            del state_dict[key]
        if none in state_dict and not state_dict[none].numel():
            del state_dict[none]
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _rules(self) -> str:
        return f"{self.irrep_normalization}, {self.path_normalization}"

    def _title(self) -> str:
        one, two, out = (own.irreps.simplify() for own in self._operands)
        return f"{one} x {two} -> {out}"


def _variances(product: str, name: str, given: Variance, irreps: Irreps) -> list[float]:
    values = [1.0] * len(irreps) if given is None else [float(value) for value in given]
    if len(values) != len(irreps):
        raise ValueError(
            f"{product} expects {name}_var of {len(irreps)} numbers, one for each block of '{irreps}', "
            f"got {len(values)}"
        )
    return values
