"""equitorch/ops/rotate: into the frames of edges and back"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import SO2Convolution
from equitorch.ops.backend import use_reference
from equitorch.ops.edges import EdgePlan
from equitorch.ops.harmonics import spherical_harmonics
from equitorch.ops.rotate import EdgeRotation, edge_frames, rotate_back, rotate_in, rotate_out
from equitorch.ops.rotate import reference as definition
from equitorch.ops.rotate.op import _terms
from equitorch.ops.rotate.wigner import compact_wigner, torque
from equitorch.reps import wigner_D, wigner_D_from_angles
from equitorch.reps.angular_momentum import so3_generators
from equitorch.reps.order import order_index
from tests.escn_primitives import primitives
from tests.strategies import seeds

SHAPES = [(0, 0, 3), (1, 0, 3), (1, 1, 1), (3, 2, 129), (5, 129, 3), (129, 3, 17), (9, 70, 0)]
DEGREES = [(0, 0), (2, 2), (3, 1), (4, 2)]
AXIS = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
PLACES = {
    "north": [0.0, 1.3, 0.0],
    "south": [0.0, -0.8, 0.0],
    "equator": [0.6, 0.0, -0.9],
    "axis of the equator": [1.1, 0.0, 0.0],
    "anywhere": [0.3, -0.7, 1.1],
}


def random_vectors(count, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, dtype=torch.float64, generator=generator).to(dtype)


def directions(dtype):
    """Ten thousand, the poles and their surroundings, and the equator from both sides."""
    tilt = torch.logspace(-12, 0, 40, dtype=torch.float64)
    angle = torch.linspace(0, 2 * math.pi, 41, dtype=torch.float64)[:-1]
    near = torch.stack([tilt * angle.cos(), torch.ones(40), tilt * angle.sin()], 1)
    equator = torch.stack([angle.cos(), torch.zeros(40), angle.sin()], 1)
    tiny = torch.tensor([0.0, 1e-9, 0.0], dtype=torch.float64)
    poles = torch.stack([AXIS, -AXIS])
    special = [near, -near, poles, equator, equator + tiny, equator - tiny]
    return torch.nn.functional.normalize(torch.cat([random_vectors(10_000), *special]), dim=1).to(dtype)


def plan_of(nodes, edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(max(nodes, 1), (2, edges), generator=generator)
    return EdgePlan.build(torch.stack([index[0], index[1].sort().values]), nodes)


def graph(nodes, edges, lmax=2, mmax=2, seed=0):
    return EdgeRotation.build(random_vectors(edges, seed=seed), lmax, mmax), plan_of(nodes, edges, seed)


def dense(frames, lmax, mmax):
    """Whole matrices (edges, kept rows, rows), one block after another."""
    blocks = [wigner_D(l, frames) for l in range(lmax + 1)]
    whole = torch.stack([torch.block_diag(*parts) for parts in zip(*blocks, strict=True)])
    return whole[:, order_index(lmax, mmax)]


def case(nodes, edges, channels, lmax, mmax, dtype=torch.float64):
    """Operands of all slots, strided on purpose; the plan by target, not by source; the sizes."""
    rotation, plan = graph(nodes, edges, lmax, mmax)
    shapes = [(nodes, rotation.rows, channels), rotation.wigner.shape, (edges, rotation.kept, channels)]
    xs = [torch.randn(*s[:-2], s[-1], s[-2], dtype=dtype).mT for s in shapes]
    walk = [plan.source, plan.sender_ptr, plan.sender_edge]
    return xs, [*walk, *_terms(lmax, mmax)], rotation.sizes


# Frames and matrices


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-15), (torch.float32, 4e-7)])
def test_frames_turn_every_direction_onto_the_axis(dtype, limit):
    n = directions(dtype)
    R = edge_frames(n)
    assert ((R @ n[:, :, None])[:, :, 0] - AXIS.to(dtype)).abs().max() < limit
    assert (R @ R.mT - torch.eye(3, dtype=dtype)).abs().max() < 2 * limit
    assert (torch.linalg.det(R) - 1).abs().max() < 10 * limit
    torch.testing.assert_close(edge_frames(3 * n), R)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-14), (torch.float32, 5e-7)])
def test_matrices_of_every_direction_turn_its_harmonics_onto_those_of_the_axis(dtype, limit):
    lmax, n = 8, directions(dtype)
    D = compact_wigner(n, lmax, lmax)
    Y, pole = (spherical_harmonics(lmax, v.double(), True, "norm") for v in (n, AXIS[None]))
    first = 0
    for l in range(lmax + 1):
        block = D[:, first : first + (2 * l + 1) ** 2].unflatten(1, (2 * l + 1, 2 * l + 1)).double()
        rows = slice(l * l, (l + 1) ** 2)
        assert ((block @ Y[:, rows, None])[:, :, 0] - pole[:, rows]).abs().max() < limit
        first += (2 * l + 1) ** 2


def test_agrees_with_the_original_code():
    file = primitives()
    for l, matrix in file["wigner_D"].items():
        torch.testing.assert_close(
            wigner_D_from_angles(int(l), *file["wigner_angles"].T), matrix, rtol=0, atol=1e-12
        )
    uma = file["uma_wigner_L6_gamma0"]
    ours = torch.stack([torch.block_diag(*[wigner_D(l, R) for l in range(7)]) for R in uma[:, 1:4, 1:4]])
    torch.testing.assert_close(ours, uma, rtol=0, atol=1e-12)
    frames, vectors = file["edge_rot_fixed"], file["edge_vec"]
    unit = torch.nn.functional.normalize(vectors, dim=1)
    torch.testing.assert_close((frames @ unit[..., None])[..., 0], AXIS.expand(len(unit), 3))
    rotation = EdgeRotation.build(vectors, 4, 2, frames=frames)
    x, plan = torch.randn(3, 25, 2, dtype=torch.float64), plan_of(3, len(unit))
    torch.testing.assert_close(rotate_in(x, rotation, plan), dense(frames, 4, 2) @ x[plan.source])


def test_zero_vector_is_taken_for_the_axis():
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(edge_frames(zero), torch.eye(3, dtype=torch.float64)[None])
    compact_wigner(zero, 2, 2).sum().backward()
    assert torch.equal(zero.grad, torch.zeros(1, 3, dtype=torch.float64))


@pytest.mark.parametrize("l", range(7))
def test_generators_have_the_stated_entries_and_commutators(l):
    """Row +m, -m of G_y are -m, m; G_x and G_z raise the order; [G_x, G_y] = G_z and so on."""
    G = so3_generators(l)
    x, y, z = G
    for a, b, c in ((x, y, z), (y, z, x), (z, x, y)):
        torch.testing.assert_close(a @ b - b @ a, c)
    expected = torch.zeros_like(G)
    for m in range(1, l + 1):
        b = math.sqrt(l * (l + 1) - m * (m - 1)) / 2 * (math.sqrt(2) if m == 1 else 1)
        expected[1, l + m, l - m] = -m
        expected[0, l + m, l + m - 1] = expected[2, l + m - 1, l - m] = b
        if m > 1:
            expected[0, l - m, l - m + 1] = expected[2, l + m, l - m + 1] = b
    torch.testing.assert_close(G, expected - expected.mT)


# The form


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("nodes", "edges", "channels"), SHAPES)
@pytest.mark.parametrize(("lmax", "mmax"), DEGREES)
@pytest.mark.parametrize("slot", range(3))
def test_kernel_agrees_with_the_reference(slot, lmax, mmax, nodes, edges, channels, dtype):
    xs, plan, sizes = case(nodes, edges, channels, lmax, mmax, dtype)
    filled = xs[:slot] + xs[slot + 1 :]
    got = torch.ops.equitorch.rotate(filled, slot, plan, sizes)
    want = definition.rotate(slot, filled, plan, sizes)
    assert got.shape == xs[slot].shape
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("slot", range(3))
def test_is_a_well_formed_operator(slot):
    xs, plan, sizes = case(3, 4, 2, 2, 1)
    filled = [x.contiguous().requires_grad_() for x in xs[:slot] + xs[slot + 1 :]]
    torch.library.opcheck(torch.ops.equitorch.rotate.default, (filled, slot, plan, sizes))


def test_matrices_are_a_well_formed_operator():
    v = random_vectors(3).requires_grad_()
    torch.library.opcheck(torch.ops.equitorch.compact_wigner.default, (v, None, 2, 1))


@given(st.sampled_from(DEGREES), seeds)
def test_is_the_product_with_whole_matrices(pair, seed):
    rotation, plan = graph(5, 12, *pair, seed=seed)
    torch.manual_seed(seed)
    D = dense(edge_frames(random_vectors(12, seed=seed)), *pair)
    x = torch.randn(5, rotation.rows, 3, dtype=torch.float64)
    m = torch.randn(12, rotation.kept, 3, dtype=torch.float64)
    back = D.mT @ m
    torch.testing.assert_close(rotate_back(m, rotation), back)
    for end, node in (("source", plan.source), ("target", plan.target)):
        torch.testing.assert_close(rotate_in(x, rotation, plan, end=end), D @ x[node])
        summed = torch.zeros_like(x).index_add(0, node, back)
        torch.testing.assert_close(rotate_out(m, rotation, plan, end=end), summed)
        inner = (rotate_in(x, rotation, plan, end=end) * m).sum()
        torch.testing.assert_close((x * rotate_out(m, rotation, plan, end=end)).sum(), inner)


def test_comes_back_where_it_came_from():
    """With all orders kept, the way back is the inverse; with fewer, it is a projection."""
    rotation, plan = graph(4, 9, 3, 3)
    x = torch.randn(4, 16, 2, dtype=torch.float64)
    torch.testing.assert_close(rotate_back(rotate_in(x, rotation, plan), rotation), x[plan.source])
    rotation, plan = graph(4, 9, 3, 1)
    m = torch.randn(9, rotation.kept, 2, dtype=torch.float64)
    each = EdgePlan.build(torch.arange(9).expand(2, 9), 9)
    torch.testing.assert_close(rotate_in(rotate_back(m, rotation), rotation, each), m)


def test_keeps_its_bits_and_leaves_its_inputs_alone():
    rotation, plan = graph(40, 300, 4, 2)
    x = torch.randn(40, 25, 7, dtype=torch.float64)
    before = x.clone()
    assert torch.equal(*[rotate_in(x, rotation, plan) for _ in range(2)])
    m = torch.randn(300, rotation.kept, 7, dtype=torch.float64)
    assert torch.equal(*[rotate_out(m, rotation, plan) for _ in range(2)])
    assert torch.equal(x, before)


# Derivatives by the direction


class Messages:
    """Gather, rotate, mix in a way that commutes with rolls, rotate back, sum; then any invariant number."""

    def __init__(self, lmax=2, mmax=2, rolls=True, seed=0):
        torch.manual_seed(seed)
        self.degrees, self.plan = (lmax, mmax), plan_of(3, 5, seed)
        self.conv = SO2Convolution(lmax, mmax, 2, 2, extra=1, parity="so3").double()
        self.x = torch.randn(3, (lmax + 1) ** 2, 2, dtype=torch.float64)
        self.fixed = random_vectors(5, seed=seed)
        self.rolls = rolls
        self.skew = torch.randn(self.conv.rows, self.conv.rows, dtype=torch.float64)

    def __call__(self, v, x=None, matrices=None):
        vectors = torch.cat([v, self.fixed[len(v) :]])
        rotation = EdgeRotation.build(vectors, *self.degrees)
        if matrices is not None:
            rotation = rotation._replace(wigner=matrices)
        y = rotate_in(self.x if x is None else x, rotation, self.plan)
        m, gate = self.conv(y)
        m = m * gate[:, None].tanh() if self.rolls else self.skew @ y
        return rotate_out(m, rotation, self.plan).pow(3).sum().sin()

    def torque(self, v):
        """And the directions, one row for each edge."""
        vectors = torch.cat([v, self.fixed[len(v) :]])
        D = compact_wigner(vectors, *self.degrees).requires_grad_()
        (grad,) = torch.autograd.grad(self(v, matrices=D), D)
        return torque(grad, D.detach(), *self.degrees), torch.nn.functional.normalize(vectors, dim=1)


def slopes(function, v, step=5e-4):
    """Central differences of fourth order, one component after another."""
    rows = []
    for direction in torch.eye(v.numel(), dtype=v.dtype).view(-1, *v.shape):
        at = [function(v + k * step * direction) for k in (-2, -1, 1, 2)]
        rows.append((at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step))
    return torch.stack(rows)


@pytest.mark.parametrize(("lmax", "mmax"), [(2, 2), (3, 1), (4, 2)])
@pytest.mark.parametrize("place", PLACES)
def test_derivatives_are_those_of_finite_differences(place, lmax, mmax):
    f = Messages(lmax, mmax)
    v = torch.tensor([PLACES[place]], dtype=torch.float64, requires_grad=True)

    def gradient(v):
        v = v.detach().requires_grad_()
        return torch.autograd.grad(f(v), v)[0].flatten()

    def hessian_vector(v, u):
        (g,) = torch.autograd.grad(f(v), v, create_graph=True)
        return torch.autograd.grad(g.flatten() @ u, v)[0].flatten()

    with torch.no_grad():
        expected = slopes(f, v.detach())
    torch.testing.assert_close(gradient(v), expected, rtol=1e-7, atol=1e-9)
    hessian = slopes(gradient, v.detach())
    for u in torch.eye(3, dtype=torch.float64):
        torch.testing.assert_close(hessian_vector(v, u), hessian @ u, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("reference", [False, True])
def test_has_derivatives_of_derivatives(reference):
    f = Messages(2, 1)
    v = torch.tensor([PLACES["anywhere"], PLACES["south"]], dtype=torch.float64, requires_grad=True)
    x = f.x.clone().requires_grad_()

    def both(v, x):
        if not reference:
            return f(v, x)
        with use_reference():
            return f(v, x)

    assert torch.autograd.gradcheck(both, (v, x))
    assert torch.autograd.gradgradcheck(both, (v, x))


@pytest.mark.parametrize("place", PLACES)
def test_nothing_turns_about_the_edge(place):
    tau, n = Messages(4, 2).torque(torch.tensor([PLACES[place]], dtype=torch.float64))
    assert (tau * n).sum(1).abs().max() <= 1e-14 * tau.abs().max().clamp(min=1)


def test_the_check_can_fail():
    """A map that sees the roll feels a torque about the edge, and its derivative is not what is given."""
    f = Messages(rolls=False)
    v = torch.tensor([PLACES["anywhere"]], dtype=torch.float64, requires_grad=True)
    tau, n = f.torque(v.detach())
    assert (tau * n).sum(1).abs().max() > 1e-2 * tau.abs().max()
    (gradient,) = torch.autograd.grad(f(v), v)
    with torch.no_grad():
        assert (gradient.flatten() - slopes(f, v)).abs().max() > 1e-2


def test_other_frames_change_nothing():
    f, v = Messages(), random_vectors(5, seed=3).requires_grad_()
    results = []
    for angle in (0.0, 1.1):
        c, s = math.cos(angle), math.sin(angle)
        roll = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
        D = compact_wigner(v, 2, 2, roll @ edge_frames(v.detach()))
        value = f(v, matrices=D)
        results.append([value, *torch.autograd.grad(value, v)])
    torch.testing.assert_close(*results)


# Transformations


def test_compiles_to_one_graph():
    f, v = Messages(), random_vectors(5).requires_grad_()
    whole = torch.compile(f.__call__, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(v), f(v))
    torch.testing.assert_close(torch.autograd.grad(whole(v), v), torch.autograd.grad(f(v), v))


def test_maps_over_a_batch_and_gives_jacobians():
    rotation, plan = graph(4, 9)
    x = torch.randn(2, 4, 9, 3, dtype=torch.float64)
    both = torch.vmap(lambda x: rotate_in(x, rotation, plan))(x)
    torch.testing.assert_close(both[1], rotate_in(x[1], rotation, plan))
    jacobian = torch.func.jacrev(lambda x: rotate_in(x, rotation, plan))(x[0])
    torch.testing.assert_close(torch.einsum("ekcnid,nid->ekc", jacobian, x[0]), both[0])
    f, v = Messages(), random_vectors(5)
    gradients = [
        torch.autograd.grad(f(w), w)[0] for w in (v.clone().requires_grad_(), (2 * v).requires_grad_())
    ]
    mapped = torch.vmap(torch.func.grad(f))(torch.stack([v, 2 * v]))
    torch.testing.assert_close(mapped, torch.stack(gradients))


def test_says_what_it_expected():
    rotation, plan = graph(4, 9)
    with pytest.raises(ValueError, match=r"rotate_in expects x .*, here \(4, 9, channels\), got \(4, 8, 3\)"):
        rotate_in(torch.randn(4, 8, 3), rotation, plan)
    with pytest.raises(
        ValueError, match=r"rotate_out expects m .*, here \(9, 9, channels\), got \(4, 9, 3\)"
    ):
        rotate_out(torch.randn(4, 9, 3), rotation, plan)
    with pytest.raises(ValueError, match="rotate_back expects m of shape"):
        rotate_back(torch.randn(9, 9), rotation)
    with pytest.raises(ValueError, match=r"here \(3, 3, 3\), got \(3, 3\)"):
        EdgeRotation.build(torch.randn(3, 3), 2, 1, frames=torch.eye(3))
    with pytest.raises(ValueError, match="an edge's end is 'source' or 'target', got 'centre'"):
        rotate_in(torch.randn(4, 9, 3), rotation, plan, end="centre")
