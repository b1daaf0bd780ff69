"""Tensors of the published EquiformerV2 (fairchem 1.10), and its weights under the names of our layers."""

import os
import pathlib

import pytest
import torch

from equitorch.layers import EdgeScalars, WideGaussians
from equitorch.ops.edges import EdgePlan
from equitorch.ops.rotate import EdgeRotation

SHARED = pathlib.Path(os.environ.get("EQUITORCH_SHARED", pathlib.Path(__file__).parents[2] / "shared"))
MODELS = ["eqv2_L2M2_gate", "eqv2_L2M2_gridmlp", "eqv2_L4M2_gridmlp"]


def reference(name):
    """The tensors of a file; the test is skipped where there are none."""
    path = SHARED / "ref" / f"{name}.pt"
    if not path.exists():
        pytest.skip("no reference file")
    return torch.load(path, weights_only=True)


def assert_same(ours, theirs, tolerance=1e-12):
    """Equal relative to the largest entry."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def part(params, prefix):
    """The weights whose names begin so, under the rest of their names."""
    return {name[len(prefix) :]: value for name, value in params.items() if name.startswith(prefix)}


def linear(params, theirs, ours):
    """An SO(3) linear map (degrees, out, in) in our order and scale."""
    weight = params[f"{theirs}.weight"]
    flat = (weight.mT * weight.shape[2] ** 0.5).reshape(-1)
    return {f"{ours}.weight": flat, f"{ours}.bias": params[f"{theirs}.bias"]}


def edges(data):
    """The plan of a file's edges, and their rotation in the file's own frames."""
    inputs, config = data["inputs"], data["config"]
    plan = EdgePlan.build(inputs["edge_index"], len(inputs["atomic_numbers"]))
    lmax, mmax = config["lmax_list"][0], config["mmax_list"][0]
    vectors = inputs["edge_distance_vec"]
    return plan, EdgeRotation.build(vectors, lmax, mmax, frames=data["frame"]["rot"])


def edge_scalars(data, prefix):
    """The scalars of a file's edges, with the element vectors of one of its blocks."""
    inputs, params = data["inputs"], data["params"]
    layer = EdgeScalars(*params[f"{prefix}source_embedding.weight"].shape).double()
    layer.source.weight.data = params[f"{prefix}source_embedding.weight"]
    layer.target.weight.data = params[f"{prefix}target_embedding.weight"]
    basis = WideGaussians(600, data["config"]["max_radius"]).double()(inputs["edge_distance"])
    return layer(basis, inputs["atomic_numbers"], edges(data)[0])
