"""Atoms and their neighbours as plain tensors; everything in eV, Angstrom and elementary charges."""

from equitorch.graph.atom_graph import AtomGraph as AtomGraph
from equitorch.graph.atom_graph import check_structure as check_structure
from equitorch.graph.labels import read_charge as read_charge
from equitorch.graph.labels import read_labels as read_labels
from equitorch.graph.neighbors import Edges as Edges
from equitorch.graph.neighbors import complete_cell as complete_cell
from equitorch.graph.neighbors import neighbor_edges as neighbor_edges
from equitorch.graph.verlet import NeighborList as NeighborList
