"""TensorNet by its formulas: dense 3x3 matrices, one molecule, weights by torchmd-net's names."""

import math

import torch
import torch.nn.functional as F

ACTIVATIONS = {
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "ssp": lambda x: F.softplus(x) - torch.tensor(2.0).log().double(),
}


def cutoff(d, lo, hi):
    phase = d / hi if lo == 0 else 2 * (d - lo) / (hi - lo) + 1
    return torch.where((d < hi) & ((d > lo) | (lo == 0)), 0.5 * (1 + torch.cos(math.pi * phase)), 0.0)


def basis(w, hp, d):
    lo, hi = hp["cutoff_lower"], hp["cutoff_upper"]
    if hp["rbf_type"] == "gauss":
        return torch.exp(w("distance_expansion.coeff") * (d[..., None] - w("distance_expansion.offset")) ** 2)
    away = torch.exp(5 / (hi - lo) * (lo - d))[..., None] - w("distance_expansion.means")
    return cutoff(d, 0, hi)[..., None] * torch.exp(-w("distance_expansion.betas") * away**2)


def parts(x):
    """Trace, antisymmetric and symmetric traceless part of matrices (..., 3, 3), each as a matrix."""
    trace = x.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * torch.eye(3, dtype=x.dtype)
    return trace, (x - x.mT) / 2, (x + x.mT) / 2 - trace


def norm2(x):
    return x.square().sum((-2, -1))


def tensornet(state_dict, hp, z, pos, q=0.0):
    """Energy of every atom, before scale and prior; matrices (atoms, channels, 3, 3) after each layer."""
    act, q_dim, n = ACTIVATIONS[hp["activation"]], hp.get("q_dim", 0), len(z)
    second = hp["model"] == "tensornet2"

    def w(name):
        full = f"representation_model.{name}"
        return state_dict[full if full in state_dict else name]

    def lin(name, x):
        return F.linear(x, w(f"{name}.weight"), w(f"{name}.bias"))

    def layer_norm(name, x):
        return F.layer_norm(x, x.shape[-1:], w(f"{name}.weight"), w(f"{name}.bias"))

    def mix(name, first, x):
        ws = [w(f"{name}.linears_tensor.{first + k}.weight") for k in range(3)]
        return sum(torch.einsum("oc,ncab->noab", m, part) for m, part in zip(ws, parts(x), strict=True))

    def by_degree(f, x):  # f (..., 3 channels), x a list of three parts
        return sum(g[..., None, None] * part for g, part in zip(f.chunk(3, -1), x, strict=True))

    def invariants(x, power):
        i, a, s = parts(x)
        first = 3 * i[..., 0, 0] ** 2 if power == 2 else i[..., 0, 0]
        return torch.cat([first, norm2(a), norm2(s)], dim=-1)

    def charges(name, x):
        h = layer_norm(f"{name}.q_norm", invariants(x, 1))
        for k in (0, 2, 4):
            h = lin(f"{name}.q_mlp.layers.{k}", h if k == 0 else act(h))
        qt, fu = h.chunk(2, -1)
        return qt + fu**2 / ((fu**2).sum(0) + 1e-6) * (q - qt.sum(0))

    r = pos[:, None] - pos[None]
    same = torch.eye(n, dtype=torch.bool)
    d = torch.where(same, 0.0, torch.where(same[..., None], 1.0, r).norm(dim=-1))
    u = torch.where(same[..., None], 0.0, r / torch.where(same, 1.0, d)[..., None])
    near = same | ((d < hp["cutoff_upper"]) & (d >= hp["cutoff_lower"]))
    envelope = (cutoff(d, hp["cutoff_lower"], hp["cutoff_upper"]) * near)[..., None]
    e = basis(w, hp, d)

    emb = w("tensor_embedding.emb.weight")[z]
    both = torch.cat([emb[:, None].expand(n, n, -1), emb[None].expand(n, n, -1)], dim=-1)
    pair = envelope * lin("tensor_embedding.emb2", both)
    p = torch.cat([pair * lin(f"tensor_embedding.distance_proj{k}", e) for k in (1, 2, 3)], dim=-1)
    cross = torch.stack(
        [torch.linalg.cross(u, b.expand_as(u), dim=-1) for b in torch.eye(3).double()], dim=-1
    )
    outer = u[..., :, None] * u[..., None, :] - (u * u).sum(-1)[..., None, None] / 3 * torch.eye(3).double()
    x = by_degree(p, [t[:, :, None] for t in (torch.eye(3).double().expand(n, n, 3, 3), cross, outer)]).sum(1)
    g = layer_norm("tensor_embedding.init_norm", norm2(x))
    for k in (0, 1):
        g = act(lin(f"tensor_embedding.linears_scalar.{k}", g))
    x = by_degree(g, parts(mix("tensor_embedding", 0, x)))
    matrices, latent = [x], charges("charge_predict_0", x) if second else None

    kappa = 1.0 if second else 1 + 0.1 * q
    for l in range(hp["num_layers"]):
        f = e
        if second:
            f = torch.cat([f, *(latent[:, None].expand(n, n, -1), latent[None].expand(n, n, -1))], dim=-1)
            assert latent.shape[1] == q_dim
        for k in range(3):
            f = act(lin(f"layers.{l}.linears_scalar.{k}", f))
        x = x / (norm2(x)[..., None, None] + 1)
        y = mix(f"layers.{l}", 0, x)
        m = by_degree(envelope * f, [part[None] for part in parts(y)]).sum(1)
        so3 = hp["equivariance_invariance_group"] == "SO(3)"
        product = 2 * y @ m if so3 else kappa * (y @ m + m @ y)
        dx = mix(f"layers.{l}", 3, product / (norm2(product)[..., None, None] + 1))
        x = x + dx + kappa * dx @ dx
        matrices.append(x)
        latent = charges(f"charge_predicts.{l}", x) if second else None

    out = act(lin("linear", layer_norm("out_norm", invariants(x, 2))))
    hidden = act(lin("output_model.output_network.layers.0", out))
    return lin("output_model.output_network.layers.2", hidden)[:, 0], matrices
