"""AtomGraph: one structure, or many side by side, as a frozen dataclass of tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from equitorch.graph.collate import collate, split
from equitorch.graph.neighbors import neighbor_edges

if TYPE_CHECKING:

    class _Batch:
        """On a graph, the tensor ``batch``; on the class, the function that makes a batch."""

        @overload
        def __get__(
            self, graph: None, cls: type[AtomGraph]
        ) -> Callable[[Sequence[AtomGraph]], AtomGraph]: ...
        @overload
        def __get__(self, graph: AtomGraph, cls: type[AtomGraph]) -> Tensor: ...
        def __get__(self, graph: AtomGraph | None, cls: type[AtomGraph]) -> Any: ...
        def __set__(self, graph: AtomGraph, value: Tensor) -> None: ...


@dataclasses.dataclass(frozen=True, eq=False)
class AtomGraph:
    r"""Atoms, their neighbours within a cutoff, and what is known about them.

    The vector of edge e, from the centre i = ``edge_index[1, e]`` to its neighbour
    j = ``edge_index[0, e]``, is

    .. math:: d_e = r_j - r_i + s_e \, C_{b(i)}

    with the integer shift s and the cell C, whose rows are the lattice vectors. Edges are sorted by centre,
    and hold every image with \|d\| < cutoff: nothing is ever truncated.

    Args:
        atomic_numbers: (atoms,) int64.
        pos: (atoms, 3) Angstrom.
        cell: (graphs, 3, 3) Angstrom, rows are lattice vectors; zero without periodicity.
        pbc: (graphs, 3) bool.
        edge_index: (2, edges) int64, [source j, target i].
        edge_shift: (edges, 3) whole numbers in the dtype of ``pos``.
        batch: (atoms,) int64, the graph of each atom, ascending.
        edge_reverse: (edges,) int64, the index of the same pair seen from the other atom.
        cutoff: radius of the edges, Angstrom.
        charge: (graphs,) total charge, e.
        energy: (graphs,) eV, always float64: a total energy does not fit into float32.
        forces: (atoms, 3) eV/Angstrom.
        stress: (graphs, 3, 3) eV/Angstrom^3, dE/d(strain)/volume: tension is positive.

    A label that a frame of a batch lacks is NaN.

    >>> water = AtomGraph.build([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], cutoff=1.2)
    >>> water.edge_index.tolist()
    [[1, 2, 0, 0], [0, 0, 1, 2]]
    """

    atomic_numbers: Tensor
    pos: Tensor
    cell: Tensor
    pbc: Tensor
    edge_index: Tensor
    edge_shift: Tensor
    if TYPE_CHECKING:
        batch: _Batch = _Batch()  # on the class, a function; see the end of this file
    else:
        batch: Tensor
    edge_reverse: Tensor | None = None
    cutoff: float | None = None
    charge: Tensor | None = None
    energy: Tensor | None = None
    forces: Tensor | None = None
    stress: Tensor | None = None

    @classmethod
    def build(
        cls,
        atomic_numbers: Tensor | Sequence[int],
        pos: Tensor | Sequence[Sequence[float]],
        *,
        cell: Tensor | None = None,
        pbc: Tensor | None = None,
        cutoff: float | None = None,
        dtype: torch.dtype | None = None,
        **labels: Tensor | None,
    ) -> AtomGraph:
        """Make the graph of one structure from its bare arrays; without a cutoff it has no edges.

        Args:
            atomic_numbers: (atoms,).
            pos: (atoms, 3) Angstrom.
            cell: (3, 3) Angstrom; default: none.
            pbc: (3,) bool; default: periodic nowhere.
            cutoff: radius of the neighbour list, Angstrom.
            dtype: of positions and edges; default: torch's default dtype.
            labels: charge, energy, forces, stress.

        Raises:
            ValueError: for impossible numbers, positions or cells, see ``check_structure``.
        """
        dtype = dtype or torch.get_default_dtype()
        pos64 = torch.as_tensor(pos, dtype=torch.float64).reshape(-1, 3)
        device = pos64.device
        numbers = torch.as_tensor(atomic_numbers, dtype=torch.int64, device=device)
        cell64 = torch.zeros(3, 3) if cell is None else torch.as_tensor(cell)
        cell64 = cell64.to(device, torch.float64).reshape(1, 3, 3)
        periodic = torch.zeros(3, dtype=torch.bool) if pbc is None else torch.as_tensor(pbc)
        periodic = periodic.to(device, torch.bool).reshape(1, 3)
        check_structure(numbers, pos64)
        bare = cls(
            atomic_numbers=numbers,
            pos=pos64,
            cell=cell64,
            pbc=periodic,
            edge_index=numbers.new_empty(2, 0),
            edge_shift=pos64.new_empty(0, 3),
            batch=torch.zeros_like(numbers),
            **labels,  # type: ignore[arg-type]
        )
        graph = bare if cutoff is None else bare.with_edges(cutoff)
        return graph.to(dtype=dtype)

    @classmethod
    def from_ase(
        cls,
        atoms: Any,
        cutoff: float | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        labels: bool = True,
        keys: Mapping[str, str] | None = None,
    ) -> AtomGraph:
        """Make the graph of an ``ase.Atoms``, with its charge and the labels it carries.

        Args:
            atoms: an ``ase.Atoms``. The charge is read from ``atoms.info["charge"]``.
            cutoff: radius of the neighbour list, Angstrom; None for no edges.
            dtype: of positions and edges; default: torch's default dtype.
            device: where the graph goes.
            labels: whether to read energy, forces and stress.
            keys: which key holds a label, e.g. ``{"energy": "dft_energy"}``; see ``read_labels``.

        Raises:
            ValueError: for a structure that cannot be right, or labels that contradict each other.
        """
        from equitorch.graph.labels import read_charge, read_labels

        found = read_labels(atoms, keys=keys).tensors() if labels else {}
        charge = read_charge(atoms)
        graph = cls.build(
            torch.from_numpy(atoms.numbers.astype("int64")),
            torch.from_numpy(atoms.positions),
            cell=torch.from_numpy(atoms.cell.array),
            pbc=torch.from_numpy(atoms.pbc),
            cutoff=cutoff,
            dtype=dtype,
            charge=None if charge is None else torch.tensor([charge], dtype=torch.float64),
            **found,
        )
        return graph if device is None else graph.to(device=device)

    @classmethod
    def from_pyg(cls, data: Any, cutoff: float, *, dtype: torch.dtype | None = None) -> AtomGraph:
        """Make a graph of a PyG ``Data`` or ``Batch``; its own edges (often bonds) are ignored.

        Read are ``z`` or ``atomic_numbers``, ``pos``, and where present ``batch``, ``cell``, ``pbc``,
        ``charge``, ``energy``, ``forces`` (or ``force``) and ``stress``.

        Raises:
            ValueError: if there are no atomic numbers or no positions.
        """
        from equitorch.graph.pyg import read_pyg

        fields = read_pyg(data, dtype=dtype or torch.get_default_dtype())
        check_structure(fields["atomic_numbers"], fields["pos"])
        return cls(**fields).with_edges(cutoff)

    def to_pyg(self) -> Any:
        """The same as a ``torch_geometric.data.Batch``, under the same attribute names."""
        from equitorch.graph.pyg import write_pyg

        return write_pyg([graph.fields() for graph in self.unbatch()])

    def unbatch(self) -> list[AtomGraph]:
        """The graphs one by one, as ``AtomGraph.batch`` would take them."""
        if self.num_graphs == 1:
            return [self]
        return [type(self)(**fields) for fields in split(self.fields(), self.ptr)]

    def fields(self) -> dict[str, Any]:
        """Every field by its name, as stored."""
        return {name: self.__dict__[name] for name in FIELDS}

    @property
    def num_graphs(self) -> int:
        """How many structures there are."""
        return self.cell.shape[0]

    @property
    def num_atoms(self) -> int:
        """How many atoms there are in all structures."""
        return self.atomic_numbers.shape[0]

    @property
    def num_edges(self) -> int:
        """How many edges there are, each pair counted from both ends."""
        return self.edge_index.shape[1]

    @cached_property
    def ptr(self) -> Tensor:
        """(graphs + 1,): the atoms of graph g are ``ptr[g]:ptr[g + 1]``."""
        return _row_ptr(self.batch, self.num_graphs)

    @cached_property
    def row_ptr(self) -> Tensor:
        """(atoms + 1,): the edges of centre i are ``row_ptr[i]:row_ptr[i + 1]``."""
        return _row_ptr(self.edge_index[1], self.num_atoms)

    def edge_vectors(self, strain: Tensor | None = None) -> Tensor:
        r"""Vectors from each centre to its neighbour, differentiable in positions, cell and strain.

        .. math:: d_e = (1 + \epsilon_{b(i)}) (r_j - r_i + s_e C_{b(i)})

        Args:
            strain: (graphs, 3, 3) or None. Zero changes nothing; dE/d\epsilon / volume there is the stress.

        Shape:
            returns (edges, 3), Angstrom.
        """
        source, target = self.edge_index[0], self.edge_index[1]
        vectors = self.pos.index_select(0, source) - self.pos.index_select(0, target)
        if self.num_graphs == 1:
            vectors = torch.addmm(vectors, self.edge_shift, self.cell[0])
            return vectors if strain is None else torch.addmm(vectors, vectors, strain[0].T)
        of_edge = self.batch.index_select(0, target)
        if self.cell.requires_grad or self.cell.device.type != "cpu" or bool(self.pbc.any()):
            cell = self.cell.index_select(0, of_edge)
            vectors = vectors + torch.einsum("ea,eab->eb", self.edge_shift, cell)
        if strain is None:
            return vectors
        return vectors + torch.einsum("eab,eb->ea", strain.index_select(0, of_edge), vectors)

    def with_edges(self, cutoff: float) -> AtomGraph:
        """The same structures with the neighbour list of another cutoff (Angstrom).

        Raises:
            ValueError: if a cell is singular or two atoms lie on one another.
        """
        edges = neighbor_edges(self.pos, self.cell, self.pbc, cutoff, batch=self.batch)
        return dataclasses.replace(self, **edges._asdict(), cutoff=float(cutoff))

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        non_blocking: bool = False,
    ) -> AtomGraph:
        """The same on another device or in another floating dtype; the energy stays float64.

        >>> AtomGraph.build([1], [[0, 0, 0]]).to(dtype=torch.float64).pos.dtype
        torch.float64
        """
        moved: dict[str, Any] = {}
        for name, value in self.fields().items():
            if isinstance(value, Tensor):
                floating = value.is_floating_point()
                kind = torch.float64 if name == "energy" else dtype if floating else None
                moved[name] = value.to(device=device, dtype=kind, non_blocking=non_blocking)
        return dataclasses.replace(self, **moved)

    def replace(self, **changes: Any) -> AtomGraph:
        """The same with some fields changed, e.g. ``graph.replace(pos=new)``; the edges stay as they are."""
        return dataclasses.replace(self, **changes)

    def __repr__(self) -> str:
        """One line with the sizes that matter."""
        labels = [
            name for name in ("charge", "energy", "forces", "stress") if self.__dict__[name] is not None
        ]
        radius = (
            "no edges" if self.cutoff is None else f"{self.num_edges} edges within {self.cutoff:g} Angstrom"
        )
        known = f", with {', '.join(labels)}" if labels else ""
        return f"AtomGraph({self.num_graphs} graphs, {self.num_atoms} atoms, {radius}{known})"


FIELDS = tuple(field.name for field in dataclasses.fields(AtomGraph))


def _batch(cls: type[AtomGraph], graphs: Sequence[AtomGraph]) -> AtomGraph:
    """Put graphs side by side as one graph without edges between them.

    A label that some frames lack becomes NaN there; one that all lack stays None.

    Raises:
        ValueError: if there are no graphs, their cutoffs differ, or only some state their charge.
    """
    if not graphs:
        raise ValueError("AtomGraph.batch expects at least one graph, got none")
    return graphs[0] if len(graphs) == 1 else cls(**collate([graph.fields() for graph in graphs]))


# A classmethod gives way to an instance's own attribute: graph.batch stays the tensor.
AtomGraph.batch = classmethod(_batch)  # type: ignore[assignment]


def _row_ptr(sorted_index: Tensor, rows: int) -> Tensor:
    """Where each row starts in an ascending index."""
    wanted = torch.arange(rows + 1, device=sorted_index.device)
    return torch.searchsorted(sorted_index.contiguous(), wanted)


def check_structure(atomic_numbers: Tensor, pos: Tensor) -> None:
    """Refuse a structure that cannot be right.

    Raises:
        ValueError: if there is no atom, an atomic number is outside 1..118, or a position is not finite.
    """
    if atomic_numbers.ndim != 1 or pos.shape != (atomic_numbers.shape[0], 3):
        expected = f"pos of shape ({atomic_numbers.numel()}, 3) for {atomic_numbers.numel()} atomic numbers"
        raise ValueError(f"AtomGraph expects {expected}, got {tuple(pos.shape)}")
    if atomic_numbers.numel() == 0:
        raise ValueError("AtomGraph expects at least one atom, got an empty structure")
    if int(atomic_numbers.min()) < 1 or int(atomic_numbers.max()) > 118:
        wrong = ((atomic_numbers < 1) | (atomic_numbers > 118)).nonzero()[0, 0].item()
        got = f"atom {wrong} has {atomic_numbers[int(wrong)].item()}"
        raise ValueError(f"AtomGraph expects atomic numbers from 1 to 118, but {got}")
    if not bool(torch.isfinite(pos).all()):
        wrong = (~torch.isfinite(pos)).any(1).nonzero()[0, 0].item()
        place = pos[int(wrong)].tolist()
        raise ValueError(f"AtomGraph expects finite positions, but atom {wrong} is at {place} Angstrom")
