"""Data sets as atom graphs: one file per source."""

from equitorch.datasets.ase_files import read_ase as read_ase
from equitorch.datasets.bpa3 import read_3bpa as read_3bpa
from equitorch.datasets.cache import cached as cached
from equitorch.datasets.check import Finding as Finding
from equitorch.datasets.check import check_dataset as check_dataset
from equitorch.datasets.dataset import AtomDataset as AtomDataset
from equitorch.datasets.dataset import Statistics as Statistics
from equitorch.datasets.kept import KeptGraphs as KeptGraphs
from equitorch.datasets.mlearn import read_mlearn as read_mlearn
from equitorch.datasets.open import open_dataset as open_dataset
from equitorch.datasets.pyg import from_pyg as from_pyg
from equitorch.datasets.pyg import read_md17 as read_md17
from equitorch.datasets.pyg import read_qm9 as read_qm9
from equitorch.datasets.reference_energies import ReferenceEnergies as ReferenceEnergies
from equitorch.datasets.reference_energies import reference_energies as reference_energies
from equitorch.datasets.rmd17 import read_rmd17 as read_rmd17
from equitorch.datasets.shipped import load_shipped as load_shipped
from equitorch.datasets.shipped import shipped_names as shipped_names
from equitorch.datasets.splits import Split as Split
from equitorch.datasets.splits import duplicates as duplicates
from equitorch.datasets.splits import split as split
