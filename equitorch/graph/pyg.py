"""To and from PyTorch Geometric; the package itself is imported only to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_ALIASES = {
    "energy": ("energy",),
    "forces": ("forces", "force"),
    "stress": ("stress",),
    "charge": ("charge",),
}


def read_pyg(data: Any, *, dtype: torch.dtype) -> dict[str, Any]:
    """The fields of an AtomGraph without edges from a PyG ``Data`` or ``Batch``.

    Raises:
        ValueError: if there are no atomic numbers (``z`` or ``atomic_numbers``) or no positions.
    """
    numbers = _first(data, ("atomic_numbers", "z"))
    pos = _first(data, ("pos",))
    if numbers is None or pos is None:
        have = sorted(data.keys()) if hasattr(data, "keys") else type(data).__name__
        raise ValueError(f"from_pyg expects data with pos and with z or atomic_numbers, got {have}")
    numbers, pos = numbers.reshape(-1).to(torch.int64), pos.to(dtype)
    batch = _first(data, ("batch",))
    batch = torch.zeros_like(numbers) if batch is None else batch
    graphs = int(getattr(data, "num_graphs", None) or (int(batch.max()) + 1 if batch.numel() else 1))
    cell, pbc = _first(data, ("cell",)), _first(data, ("pbc",))
    if pbc is None:
        pbc = pos.new_full((graphs, 3), cell is not None and bool(cell.any()), dtype=torch.bool)
    fields: dict[str, Any] = {
        "atomic_numbers": numbers,
        "pos": pos,
        "cell": pos.new_zeros(graphs, 3, 3) if cell is None else cell.reshape(-1, 3, 3).to(dtype),
        "pbc": pbc.reshape(-1, 3).bool().expand(graphs, 3),
        "edge_index": numbers.new_empty(2, 0),
        "edge_shift": pos.new_empty(0, 3),
        "batch": batch,
    }
    for name, aliases in _ALIASES.items():
        fields[name] = _label(name, _first(data, aliases), graphs, pos)
    return fields


def write_pyg(graphs: Sequence[dict[str, Any]]) -> Any:
    """A ``torch_geometric.data.Batch`` of graphs given as fields."""
    from torch_geometric.data import Batch, Data

    class AtomData(Data):
        """PyG's Data, told that the reverse of an edge is counted in edges."""

        def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
            """How much an index grows from one graph to the next."""
            if key == "edge_reverse":
                return self.edge_index.shape[1]
            return super().__inc__(key, value, *args, **kwargs)

    items = []
    for fields in graphs:
        known = {name: value for name, value in fields.items() if value is not None and name != "batch"}
        items.append(AtomData(**known, z=fields["atomic_numbers"], num_nodes=fields["pos"].shape[0]))
    return Batch.from_data_list(items)


def _first(data: Any, names: tuple[str, ...]) -> Tensor | None:
    """The first of these attributes that is a tensor."""
    for name in names:
        value = getattr(data, name, None)
        if isinstance(value, Tensor):
            return value
        if isinstance(value, int | float) and name == "charge":
            return torch.tensor([float(value)])
    return None


def _label(name: str, value: Tensor | None, graphs: int, pos: Tensor) -> Tensor | None:
    """A label in the shape and dtype of AtomGraph."""
    if value is None:
        return None
    shape = {"forces": (pos.shape[0], 3), "stress": (graphs, 3, 3)}.get(name, (graphs,))
    if value.numel() != torch.Size(shape).numel():
        raise ValueError(f"from_pyg expects {name} of shape {tuple(shape)}, got {tuple(value.shape)}")
    return value.reshape(shape).to(torch.float64 if name == "energy" else pos.dtype)
