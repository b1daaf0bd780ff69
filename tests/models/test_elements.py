"""equitorch/models/elements.py"""

import pytest
import torch

from equitorch.models import elements
from equitorch.models.equiformer_v2 import EquiformerV2
from equitorch.models.escn import ESCN
from equitorch.models.esen import ESEN
from equitorch.models.mace import MACE
from equitorch.models.nequip import NequIP
from equitorch.models.potential import Potential
from equitorch.models.tensornet import TensorNet
from equitorch.models.tensornet2 import TensorNet2
from tests.models.toy import Toy

MODELS = [
    (NequIP, {"channels": 2, "layers": 1}),
    (MACE, {"channels": 2, "layers": 1, "max_ell": 1}),
    (TensorNet, {"channels": 2, "layers": 1}),
    (TensorNet2, {"channels": 2, "layers": 1}),
    (EquiformerV2, {"channels": 4, "layers": 1, "lmax": 1, "mmax": 1}),
    (ESCN, {"channels": 4, "layers": 1, "lmax": 1, "mmax": 1}),
    (ESEN, {"channels": 4, "layers": 1, "lmax": 1, "mmax": 1}),
]


@pytest.mark.parametrize(("model", "options"), MODELS)
def test_models_refuse_elements_without_a_row(model, options):
    net, words = model(cutoff=3.0, max_z=10, **options), f"{model.__name__} expects atomic_numbers"
    batch = torch.zeros(2, dtype=torch.int64)
    edges = torch.tensor([[1, 0], [0, 1]]), torch.eye(3)[:2], batch, 1
    for z, got in (([1, 10], "1 to 10"), ([-1, 8], "-1 to 8")):
        with pytest.raises(ValueError, match=f"{words} from 0 to 9.*got {got}"):
            net(torch.tensor(z), *edges)
    with pytest.raises(ValueError, match=f"{words} as int64, got torch.float"):
        net(torch.tensor([1.0, 8.0]), *edges)
    assert net(torch.tensor([1, 9]), *edges)["energy"].shape == (1,)


def test_potential_takes_chemical_symbols():
    assert Potential(Toy(), species=["H", "C"]).species == (1, 6)
    assert elements.known_species(["O", 1], (), Toy()) == (1, 8)
    with pytest.raises(ValueError, match=r"as atomic numbers .* or chemical symbols .*, got \['H', 'Hx'\]"):
        Potential(Toy(), species=["H", "Hx"])
