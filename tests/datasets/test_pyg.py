import pytest
import torch

from equitorch.datasets import from_pyg, read_md17, read_qm9

pytest.importorskip("torch_geometric")
from torch_geometric.data import Data


def test_reads_any_pyg_data():
    y = torch.arange(38.0).reshape(2, 1, 19)
    bonds = torch.tensor([[0], [1]])
    items = [Data(z=torch.tensor([8, 1]), pos=torch.eye(3)[:2], y=y[k], edge_index=bonds) for k in range(2)]
    data = from_pyg(items, target=7)
    assert data.energies.tolist() == [7.0, 26.0]
    assert data[0].num_edges == 0
    items = [
        Data(z=torch.tensor([1]), pos=torch.zeros(1, 3), energy=1.0 * torch.ones(1), force=torch.ones(1, 3))
    ]
    data = from_pyg(items, energy_unit="kcal/mol")
    assert data[0].forces[0, 0].item() == pytest.approx(0.0433641043)


def test_downloads_nothing_unasked(tmp_path):
    for read in (lambda: read_qm9(tmp_path), lambda: read_md17(tmp_path, "aspirin")):
        with pytest.raises(ValueError, match="no data here; pass download=True"):
            read()
    assert list(tmp_path.iterdir()) == []


def test_says_what_it_expected():
    with pytest.raises(
        ValueError, match="a PyG data set, frame 0: from_pyg expects data with pos and with z"
    ):
        from_pyg([Data(pos=torch.zeros(1, 3))])
