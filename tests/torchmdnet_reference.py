"""Reference data of torchmd-net: files beside the repository, and models whose weights are a formula."""

import functools
import os
import pathlib

import pytest
import torch

from equitorch.graph import AtomGraph

SHARED = pathlib.Path(os.environ.get("EQUITORCH_SHARED", pathlib.Path(__file__).parents[2] / "shared"))
FILES = ("o3_small", "so3_small", "o3_mean_std_atomref", "o3_gauss_trainable", "tn2_small")

HYPER = {
    "model": "tensornet",
    "embedding_dimension": 8,
    "num_layers": 2,
    "num_rbf": 6,
    "rbf_type": "expnorm",
    "trainable_rbf": False,
    "activation": "silu",
    "cutoff_lower": 0.0,
    "cutoff_upper": 4.5,
    "max_z": 10,
    "max_num_neighbors": 64,
    "precision": 64,
    "equivariance_invariance_group": "O(3)",
    "prior_model": None,
    "output_model": "Scalar",
    "reduce_op": "add",
    "derivative": True,
    "atom_filter": -1,
    "static_shapes": False,
}

# A molecule without symmetry, charge -1; two of its atoms are closer than 0.8 Å.
NUMBERS = torch.tensor([6, 8, 7, 1, 9])
POSITIONS = torch.tensor(
    [[0.0, 0.0, 0.0], [1.4, 0.1, -0.2], [-0.5, 1.3, 0.3], [-0.3, -0.4, 0.55], [0.2, -1.1, -1.9]]
).double()
CHARGE = -1.0


@functools.cache
def reference(name):
    """One of the files, or a skip."""
    path = SHARED / "ref" / f"tensornet_{name}.pt"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return torch.load(path, weights_only=True)


def graph_of(case, cutoff, dtype=torch.float64):
    """A case of a file as a batch with neighbours of our own list."""
    batch, box, q = case["batch"], case.get("box"), case.get("q")
    graphs = []
    for b in range(int(batch.max()) + 1):
        mine = batch == b
        cell = None if box is None else box if box.ndim == 2 else box[b]
        graphs.append(
            AtomGraph.build(
                case["z"][mine],
                case["pos"][mine],
                cell=cell,
                pbc=None if cell is None else torch.ones(3, dtype=torch.bool),
                cutoff=cutoff,
                dtype=dtype,
                charge=None if q is None else q[b : b + 1].to(dtype),
            )
        )
    return AtomGraph.batch(graphs)


def molecule(cutoff, *, charge=CHARGE, pos=POSITIONS):
    """The molecule above as a graph."""
    q = torch.tensor([charge], dtype=torch.float64)
    return AtomGraph.build(NUMBERS, pos, cutoff=cutoff, dtype=torch.float64, charge=q)


def shapes(hp):
    """Names and shapes of a torchmd-net checkpoint, in a fixed order."""
    c, k, z, count = hp["embedding_dimension"], hp["num_rbf"], hp["max_z"], hp["num_layers"]
    second = hp["model"] == "tensornet2"
    q = hp["q_dim"] if second else 0
    linears = {f"tensor_embedding.distance_proj{i}": (c, k) for i in (1, 2, 3)}
    linears |= {
        "tensor_embedding.emb2": (c, 2 * c),
        "tensor_embedding.linears_scalar.0": (2 * c, c),
        "tensor_embedding.linears_scalar.1": (3 * c, 2 * c),
        "linear": (c, 3 * c),
    }
    bare = {"tensor_embedding.emb.weight": (z, c)}
    bare |= {f"tensor_embedding.linears_tensor.{i}.weight": (c, c) for i in range(3)}
    norms = {"tensor_embedding.init_norm": c, "out_norm": 3 * c}
    for l in range(count):
        linears[f"layers.{l}.linears_scalar.0"] = (c, k + 2 * q)
        linears[f"layers.{l}.linears_scalar.1"] = (2 * c, c)
        linears[f"layers.{l}.linears_scalar.2"] = (3 * c, 2 * c)
        bare |= {f"layers.{l}.linears_tensor.{i}.weight": (c, c) for i in range(6)}
    for head in ["charge_predict_0", *(f"charge_predicts.{l}" for l in range(count))] if second else []:
        norms[f"{head}.q_norm"] = 3 * c
        sizes = {0: (c, 3 * c), 2: (c, c), 4: (2 * q, c)}
        linears |= {f"{head}.q_mlp.layers.{i}": size for i, size in sizes.items()}
    out = dict(bare)
    for name, size in linears.items():
        out |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
    for name, size in norms.items():
        out |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    out = {f"representation_model.{name}": size for name, size in out.items()}
    for i, size in {0: (c // 2, c), 2: (1, c // 2)}.items():
        out[f"output_model.output_network.layers.{i}.weight"] = size
        out[f"output_model.output_network.layers.{i}.bias"] = size[:1]
    return out


def state_dict(hp):
    """Weights by a formula, in torchmd-net 3's layout, float64."""
    out = {}
    for index, (name, shape) in enumerate(shapes(hp).items()):
        count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).view(shape)
        wave = torch.sin(1.7 * count + 0.9 * index + 1)
        is_norm = name.endswith("norm.weight")
        out[name] = 1 + 0.2 * wave if is_norm else wave * (1.5 / shape[-1]) ** 0.5
    k, lo, hi = hp["num_rbf"], hp["cutoff_lower"], hp["cutoff_upper"]
    if hp["rbf_type"] == "gauss":
        offset = torch.linspace(lo, hi, k)
        extra = {"offset": offset, "coeff": -0.5 / (offset[1] - offset[0]) ** 2}
    else:
        start = torch.exp(torch.tensor(lo - hi))
        betas = torch.full((k,), float((2 / k * (1 - start)) ** -2))
        extra = {"means": torch.linspace(float(start), 1, k), "betas": betas}
    out |= {
        f"representation_model.distance_expansion.{name}": value.double() for name, value in extra.items()
    }
    out["representation_model.distance.box"] = torch.zeros(3, 3, dtype=torch.float64)
    out["mean"], out["std"] = torch.tensor(0.75).double(), torch.tensor(2.5).double()
    if hp["prior_model"]:
        table = torch.sin(torch.arange(hp["max_z"]).double())[:, None]
        out |= {"prior_model.0.initial_atomref": 0 * table, "prior_model.0.atomref.weight": table}
    return out
