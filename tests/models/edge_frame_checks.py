"""What every model that works in the frames of edges must show; and published tensors."""

import math
import os
import warnings
from pathlib import Path

import pytest
import torch

from equitorch.interop import fairchem
from equitorch.ops.rotate import edge_frames

CUTOFF = 4.0
SHAPES = [(2, 2), (4, 2), (4, 4), (6, 2), (6, 6)]
SHARED = Path(os.environ.get("EQUITORCH_SHARED", Path(__file__).parents[3] / "shared"))


def molecule(atoms=12, seed=0):
    """Random elements at random places, none closer than 1 Å."""
    generator = torch.Generator().manual_seed(seed)
    places, size = [], (atoms / 10) ** (1 / 3) * 4
    while len(places) < atoms:
        place = (torch.rand(3, generator=generator, dtype=torch.float64) - 0.5) * size
        if all((place - other).norm() > 1 for other in places):
            places.append(place)
    return torch.randint(1, 10, (atoms,), generator=generator), torch.stack(places)


def edges(pos, cutoff=CUTOFF):
    near = ((pos[None] - pos[:, None]).norm(dim=-1) < cutoff) & ~torch.eye(len(pos), dtype=torch.bool)
    target, source = near.nonzero().T
    return torch.stack([source, target])


def energy(model, z, pos, batch=None, graphs=1, edge_index=None, **options):
    index = edges(pos.detach()) if edge_index is None else edge_index
    batch = torch.zeros(len(pos), dtype=torch.long) if batch is None else batch
    return model(z, index, pos[index[0]] - pos[index[1]], batch, graphs, **options)


def run(model, z, pos, **options):
    """Energy and forces, the negative gradient."""
    pos = pos.detach().clone().requires_grad_()
    out = energy(model, z, pos, **options)
    (gradient,) = torch.autograd.grad(out["energy"].sum(), pos, materialize_grads=True)
    return out["energy"].detach(), -gradient, out


def orthogonal(seed=0, *, mirror=False):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    return -q if (torch.det(q) < 0) != mirror else q


def errors(model, mirror=False, dtype=torch.float64, seed=0):
    """How far energy and forces are from following a rotation, or a reflection."""
    model, (z, pos) = model.to(dtype), molecule()
    q = orthogonal(seed, mirror=mirror)
    e, f, out = run(model, z, pos.to(dtype))
    turned, forces, _ = run(model, z, (pos @ q.T).to(dtype))
    scale = out["node_energy"].detach().abs().sum()
    return float((turned - e).abs().max() / scale), float((forces - f @ q.T.to(dtype)).norm() / f.norm())


def check_symmetry(model, single=4e-6):
    for mirror in (False, True):
        assert max(errors(model, mirror)) < 1e-12
        assert max(errors(model, mirror, torch.float32)) < single  # few channels, and rounded input
    model.double()


def check_features_turn(model):
    """Natural features are harmonics: rows 1 to 3 are a vector."""
    (z, pos), q = molecule(), orthogonal(3, mirror=True)
    x, y = (energy(model, z, p)["node_features"][..., : model.natural].detach() for p in (pos, pos @ q.T))
    assert x[:, 1:4].abs().max() > 1e-3
    torch.testing.assert_close(y[:, :1], x[:, :1], rtol=0, atol=1e-12)
    torch.testing.assert_close(y[:, 1:4], q @ x[:, 1:4], rtol=0, atol=1e-12)


def check_frames_make_no_difference(model):
    """Any roll about each edge, and so the poles and the jump of the gauge, leave everything as it was."""
    z, pos = molecule()
    index = edges(pos)
    v = pos[index[0]] - pos[index[1]]
    angle = torch.rand(len(v), dtype=torch.float64) * 2 * math.pi
    c, s, o, i = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    roll = torch.stack([c, o, s, o, i, o, -s, o, c], dim=-1).unflatten(-1, (3, 3))
    e, f, _ = run(model, z, pos)
    again, forces, _ = run(model, z, pos, edge_frames=roll @ edge_frames(v))
    torch.testing.assert_close(again, e, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(forces, f, rtol=0, atol=1e-12 * float(f.abs().max()))


def check_smooth_over_poles(model):
    """An edge that passes a pole or the equator of the gauge: energy and forces go on like parabolas."""
    for axis, other in (((0.0, 1.0, 0.0), (1.0, 0.0, 0.0)), ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
                        ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))):  # fmt: skip
        a, b = torch.tensor(axis).double(), torch.tensor(other).double()
        rest = torch.tensor([[0.0, 0.0, 0.0], [0.7, 0.5, -1.1], [-0.9, 0.4, 0.8]]).double()
        energies, turning = [], []
        for theta in (0.0, 1e-8, -1e-8, 1e-4, -1e-4):
            end = 1.3 * (math.cos(theta) * a + math.sin(theta) * b)
            e, f, _ = run(model, torch.tensor([8, 1, 6, 7]), torch.cat([rest, end[None]]))
            energies.append(float(e))
            turning.append(f)
        assert max(abs(e - energies[0]) for e in energies[1:3]) < 1e-7 * turning[0].abs().max() + 1e-13
        assert max((f - turning[0]).abs().max() for f in turning[1:3]) < 1e-6 * turning[0].abs().max()
        bend = (turning[3] + turning[4] - 2 * turning[0]).abs().max()
        assert bend < 1e-4 * turning[0].abs().max()


def check_smooth_at_cutoff(model):
    """A pair that comes into sight changes nothing yet: not the energy, not the forces."""
    z, rest = torch.tensor([8, 1, 6]), torch.tensor([[0.0, 0.0, 0.0], [0.6, 0.8, 0.1]]).double()
    found = []
    for d in (CUTOFF - 1e-7, CUTOFF + 1e-7):
        far = torch.tensor([[0.0, 0.0, -d]]).double()
        found.append(run(model, z, torch.cat([rest, far])))
    (e, f, _), (other, forces, _) = found
    torch.testing.assert_close(e, other, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(f, forces, rtol=0, atol=1e-12 * float(f.abs().max()))


def check_forces_are_differences(model, step=1e-4):
    """Central differences of fourth order."""
    z, pos = molecule(8)
    index = edges(pos)
    _, f, _ = run(model, z, pos, edge_index=index)
    pos = pos.detach()
    direction = torch.randn(pos.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shifts = {
        k: energy(model, z, pos + k * step * direction, edge_index=index)["energy"].detach()
        for k in (-2, -1, 1, 2)
    }
    slope = (8 * (shifts[1] - shifts[-1]) - (shifts[2] - shifts[-2])) / (12 * step)
    error = float((slope + (f * direction).sum()).abs() / (f * direction).sum().abs())
    assert error < 1e-7, error


def check_sums(model):
    """Two molecules are their sum, an atom alone is itself, repeated calls are equal bit for bit."""
    (z, pos), (z2, pos2) = molecule(7, 1), molecule(5, 2)
    alone = torch.full((1, 3), 1e3, dtype=torch.float64)
    numbers, places = torch.cat([z, z2, z[:1]]), torch.cat([pos, pos2 + 50, alone])
    batch = torch.tensor([0] * 7 + [1] * 5 + [2])
    e, f, _ = run(model, numbers, places, batch=batch, graphs=3)
    again, forces, _ = run(model, numbers, places, batch=batch, graphs=3)
    assert torch.equal(e, again)
    assert torch.equal(f, forces)
    parts = [run(model, z, pos), run(model, z2, pos2), run(model, z[:1], alone)]
    torch.testing.assert_close(e, torch.cat([part[0] for part in parts]), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(f, torch.cat([part[1] for part in parts]), rtol=0, atol=1e-11)
    assert not f[-1].any()


def check_compiles(model):
    """One graph, with the same energies and the same derivatives by edge vectors."""
    (z, pos), found = molecule(), []
    index, batch = edges(pos), torch.zeros(len(z), dtype=torch.long)
    for function in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        vectors = (pos[index[0]] - pos[index[1]]).requires_grad_()
        e = function(z, index, vectors, batch, 1)["energy"]
        found += [e.detach(), *torch.autograd.grad(e.sum(), vectors)]
    torch.testing.assert_close(found[2:], found[:2])


def reference(name):
    path = SHARED / "ref" / f"{name}.pt"
    if not path.exists():
        pytest.skip(f"the tensors of the published code are not at {path}")
    return torch.load(path, weights_only=True)


def published(given):
    """The model of a file of published tensors; it says of itself that it is not exact."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return fairchem.load(given)


def relative(ours, theirs):
    return float((ours.detach() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-300))


def gradients(model, given):
    """The worst relative error of the parameters' gradients, those that are zero left out."""
    ours = fairchem.parameters(model, gradients=True)
    found = {}
    for name, theirs in given.items():
        key = name.removeprefix("bb.").removeprefix("head.")
        if theirs.abs().max() > 1e-12:
            found[name] = relative(ours[key], theirs)
        else:
            assert ours[key].abs().max() < 1e-12, name
    return max(found.values())
