"""equitorch/layers/tensor_product.py, and the plan under it: product_schemes, product_plan, product_call"""

import copy
import pickle
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equitorch.layers import TensorProduct
from equitorch.layers.instructions import MODES
from equitorch.ops.backend import use_reference
from equitorch.reps import Irreps, common_channels, from_e3nn, rows_of, to_e3nn
from equitorch.testing import assert_equivariant
from tests.strategies import seeds

CROSS = ("4x1o", "4x1o", "4x1e", [(0, 0, 0, "uuu", False)])
DOT = ("4x1o", "4x1o", "4x0e", [(0, 0, 0, "uuu", False)])


def connected(one, two, out):
    """Every path of mode uvw."""
    one, two, out = Irreps(one), Irreps(two), Irreps(out)
    return [
        (i, j, k, "uvw", True)
        for i, (_, a) in enumerate(one)
        for j, (_, b) in enumerate(two)
        for k, (_, c) in enumerate(out)
        if c in a * b
    ]


SIZES = {  # multiplicity of the result, from those of the operands
    "uvu": lambda u, v: u,
    "uvv": lambda u, v: v,
    "uuu": lambda u, v: u,
    "uvuv": lambda u, v: u * v,
    "uvu<v": lambda u, v: u * (u - 1) // 2,
}


@st.composite
def products(draw):
    """Irreps and instructions: zero multiplicities, repeated irreps, several paths into one block."""
    irrep = st.tuples(st.integers(0, 2), st.sampled_from([1, -1]))
    entry = st.tuples(st.sampled_from([0, 1, 1, 2, 3, 4]), irrep)
    one, two = draw(st.lists(entry, min_size=1, max_size=3)), draw(st.lists(entry, min_size=1, max_size=3))
    out, paths = [(2, (1, 1))], []
    for _ in range(draw(st.integers(0, 5))):
        mode = draw(st.sampled_from(MODES))
        same = mode in ("uuw", "uuu", "uvu<v", "u<vw")
        pairs = [
            (i, j) for i in range(len(one)) for j in range(len(two)) if not same or one[i][0] == two[j][0]
        ]
        if not pairs:
            continue
        i, j = draw(st.sampled_from(pairs))
        (u, (l1, p1)), (v, (l2, p2)) = one[i], two[j]
        weighted = mode in ("uvw", "u<vw") or draw(st.booleans())
        ir = draw(st.integers(abs(l1 - l2), l1 + l2)), p1 * p2
        free = draw(st.integers(0, 3)) if weighted else 1
        mul = SIZES[mode](u, v) if mode in SIZES else free
        fits = [k for k, (m, own) in enumerate(out) if own == ir and (mode in ("uvw", "u<vw") or m == mul)]
        if not fits or draw(st.booleans()):
            out.append((mul, ir))
            fits = [len(out) - 1]
        paths.append(
            (i, j, draw(st.sampled_from(fits)), mode, weighted, draw(st.sampled_from([1.0, 0.5, 2])))
        )
    rules = {
        "irrep_normalization": draw(st.sampled_from(["component", "norm", "none"])),
        "path_normalization": draw(st.sampled_from(["element", "path", "none"])),
        "shared_weights": draw(st.booleans()),
        "internal_weights": False,
    }
    for name, own in (("in1_var", one), ("in2_var", two), ("out_var", out)):
        rules[name] = draw(st.lists(st.floats(0.5, 2), min_size=len(own), max_size=len(own)))
    return one, two, out, paths, rules


def derivatives(product, operands, seed):
    """The value, and the first and second derivatives along random directions."""
    torch.manual_seed(seed)
    value = product(*operands)
    found = [value.detach()]
    for _ in range(2):
        if not value.requires_grad:
            break
        value = (value * torch.randn(value.shape)).sum()  # not randn_like, which follows strides
        grads = torch.autograd.grad(value, operands, create_graph=True, materialize_grads=True)
        found += [grad.detach() for grad in grads]
        value = torch.cat([grad.flatten() for grad in grads])
    return found


@pytest.fixture
def o3():
    """e3nn, with its constants in float64."""
    module = pytest.importorskip("e3nn.o3")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield module
    torch.set_default_dtype(before)


@pytest.mark.parametrize("layout", ["rows", "e3nn"])
def test_agrees_with_e3nn_and_so_do_two_derivatives(o3, layout):
    @given(products(), st.sampled_from([(), (0,), (3,), (2, 2)]), seeds)
    def check(case, batch, seed):
        one, two, out, paths, rules = case
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = o3.TensorProduct(one, two, out, paths, **rules)
        ours = TensorProduct(one, two, out, paths, **rules, layout=layout)
        torch.manual_seed(seed)
        points = () if rules["shared_weights"] else (batch or (1,))
        shapes = (*batch, Irreps(one).dim), (*batch, Irreps(two).dim), (*points, theirs.weight_numel)
        operands = [torch.randn(shape, requires_grad=True) for shape in shapes]

        def flat(x, y, weight):
            if layout == "e3nn":
                return ours(x, y, weight)
            return to_e3nn(ours(from_e3nn(x, one), from_e3nn(y, two), weight), out)

        expected = derivatives(theirs, operands, seed)
        for a, b in zip(derivatives(flat, operands, seed), expected, strict=False):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)

    check()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("one", "two", "out"),
    [
        ("32x0e+32x1o+32x2e", "0e+1o+2e", "32x0e+32x1o+32x2e"),
        ("16x0e+16x1o", "16x0e+16x1o", "16x0e+16x1o"),
        ("8x0e+4x1o", "2x0e+2x1o+3x2e", "16x0e+8x1o"),
        ("1o+0e", "24x1o", "8x0e+8x1o"),
    ],
)
def test_agrees_with_e3nn_at_sizes_where_another_way_is_cheaper(o3, one, two, out, shared):
    paths, options = connected(one, two, out), {"shared_weights": shared, "internal_weights": False}
    theirs = o3.TensorProduct(one, two, out, paths, **options)
    ours = TensorProduct(one, two, out, paths, **options, layout="e3nn")
    shapes = (3, Irreps(one).dim), (3, Irreps(two).dim), (*(() if shared else (3,)), ours.weight_numel)
    operands = [torch.randn(shape, requires_grad=True) for shape in shapes]
    for a, b in zip(derivatives(ours, operands, 0), derivatives(theirs, operands, 0), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", ["rows", "e3nn"])
def test_means_the_cross_and_the_dot_product(layout):
    """Answers known without any library: the norms are those of component normalisation."""
    x, y = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    given_x, given_y = (t.mT.flatten(1) if layout == "e3nn" else t for t in (x, y))
    cross, dot = (TensorProduct(*case, layout=layout)(given_x, given_y) for case in (CROSS, DOT))
    cross = cross.unflatten(1, (4, 3)).mT if layout == "e3nn" else cross
    torch.testing.assert_close(cross, torch.linalg.cross(x, y, dim=1) / 2**0.5)
    torch.testing.assert_close(dot.flatten(1), (x * y).sum(1) / 3**0.5)


MIXED = (
    "2x0e+2x1o+2x1e",
    "2x0o+2x1o",
    "2x1o+2x0e+4x1e+2x1e",
    [
        (1, 0, 3, "uvu", True),
        (1, 1, 1, "uvv", True),
        (0, 1, 0, "uuu", False),
        (1, 1, 2, "uvuv", True),
        (2, 0, 0, "uvw", True),
    ],
)


@pytest.mark.parametrize("case", [("2x0e+2x1o+2x1e",) * 3, MIXED])
def test_commutes_with_every_rotation_and_mirror(case):
    one, two, out, *paths = case
    product = TensorProduct(one, two, out, paths[0] if paths else connected(one, two, out)).double()
    channels = common_channels(one), common_channels(two)
    assert_equivariant(product, [rows_of(one), rows_of(two)], rows_of(out), channels=channels)


def test_the_check_can_fail():
    """A weight on a component, not on an irrep, must be caught."""
    product = TensorProduct(*CROSS).double()
    with pytest.raises(AssertionError, match="row"):
        assert_equivariant(lambda x, y: product(x, y.cumsum(-2)), ["1o", "1o"], "1e")


def test_keeps_unit_variance():
    torch.manual_seed(0)
    one, two, out = "32x0e+32x1o", "8x0e+8x1o", "16x0e+16x1o"
    product = TensorProduct(one, two, out, connected(one, two, out))
    y = product(torch.randn(2000, 4, 32), torch.randn(2000, 4, 8))
    assert y.var().item() == pytest.approx(1, rel=0.1)


def test_takes_weights_in_every_form():
    one, two, out = "3x0e+2x1o", "0e+1o", "2x0e+4x1o"
    paths = [*connected(one, two, out), (0, 1, 2, "uvu", True)]
    out = out + "+3x1o"
    x, y = torch.randn(5, Irreps(one).dim), torch.randn(5, 4)
    own = TensorProduct(one, two, out, paths, layout="e3nn")
    expected, views = own(x, y), list(own.weight_views())
    assert [view.shape for view in views] == [path.path_shape for path in own.instructions]
    assert torch.equal(views[2], own.weight_view_for_instruction(2))
    assert views[0].data_ptr() == own.weight.data_ptr()
    given_weights = TensorProduct(one, two, out, paths, layout="e3nn", internal_weights=False)
    each = TensorProduct(one, two, out, paths, layout="e3nn", shared_weights=False)
    assert not list(given_weights.parameters())
    assert not each.internal_weights
    torch.testing.assert_close(given_weights(x, y, own.weight), expected)
    torch.testing.assert_close(given_weights(x, y, views), expected)
    torch.testing.assert_close(each(x, y, own.weight.expand(5, -1)), expected)
    torch.testing.assert_close(each(x, y, [view.expand(5, *view.shape) for view in views]), expected)


def test_broadcasts_leading_axes():
    one, two, out = "4x0e+4x1o", "0e+1o", "4x0e+4x1o"
    product = TensorProduct(one, two, out, connected(one, two, out), shared_weights=False)
    x, y, w = torch.randn(2, 1, 4, 4), torch.randn(3, 4, 1), torch.randn(1, 3, product.weight_numel)
    full = product(x.expand(2, 3, 4, 4), y.expand(2, 3, 4, 1), w.expand(2, 3, -1))
    torch.testing.assert_close(product(x, y, w), full)


@pytest.mark.parametrize("layout", ["rows", "e3nn"])
def test_without_paths_is_zero_and_so_are_derivatives(layout):
    product = TensorProduct("2x0e+2x1o", "1o", "2x0o+1e", [], layout=layout)
    x, y = (torch.full(shape.shape, float("nan")) for shape in operands_of(product, 3))
    z = product(x.requires_grad_(), y.requires_grad_())
    assert z.eq(0).all()
    assert all(grad.eq(0).all() for grad in torch.autograd.grad(z.sum(), (x, y)))


def operands_of(product, *batch, dtype=None):
    """Random operands, strided on purpose."""
    for own in (product.irreps_in1, product.irreps_in2):
        if product.layout == "e3nn":
            yield torch.randn(*batch, own.dim, 2, dtype=dtype)[..., 0]
        else:
            yield torch.randn(*batch, common_channels(own), rows_of(own).dim, dtype=dtype).mT


def test_untouched_blocks_have_zero_gradients():
    product = TensorProduct("2x0e+2x1o", "0e+1o", "2x0e", [(0, 0, 0, "uvu", False)])
    x, y = (t.requires_grad_() for t in operands_of(product, 3))
    grads = torch.autograd.grad(product(x, y).sum(), (x, y))
    for grad in grads:
        assert grad[:, 1:].eq(0).all()


FILTER = (
    "4x0e+4x1o",
    "0e+1o",
    "4x0e+4x1o",
    [(0, 0, 0, "uvu", True), (1, 1, 0, "uvu", True), (0, 1, 1, "uvu", True), (1, 0, 1, "uvu", True)],
)
TURNED = ("0e+1o", "2x0e+2x1o", "2x0e+2x1o", [(0, 1, 1, "uvv", True), (1, 1, 0, "uvv", True)])
CASES = [
    MIXED,
    FILTER,
    TURNED,
    ("16x0e+16x1o", "16x0e+16x1o", "16x0e+16x1o", None),
    ("0e+1o", "3x1o", "2x0e", None),
]


def built(case, layout="rows", **options):
    one, two, out, paths = case
    paths = connected(one, two, out) if paths is None else paths
    return TensorProduct(one, two, out, paths, layout=layout, **options)


@pytest.mark.parametrize("layout", ["rows", "e3nn"])
@pytest.mark.parametrize("case", CASES)
def test_compiles_to_one_graph_and_exports(case, layout):
    product = built(case, layout)
    torch.compiler.reset()
    whole = torch.compile(product, fullgraph=True, backend="aot_eager")
    x, y = (t.requires_grad_() for t in operands_of(product, 2, 3))
    torch.testing.assert_close(whole(x, y), product(x, y))
    inputs = (x, y, product.weight)
    compiled = torch.autograd.grad(whole(x, y).square().sum(), inputs)
    torch.testing.assert_close(compiled, torch.autograd.grad(product(x, y).square().sum(), inputs))
    exported = torch.export.export(product, (x.detach(), y.detach())).module()
    torch.testing.assert_close(exported(x, y), product(x, y))


@pytest.mark.parametrize("case", CASES)
def test_works_under_function_transforms(case):
    product = built(case).double()
    x, y = operands_of(product, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(product)(x, y), product(x, y))
    each = built(case, shared_weights=False).double()
    w = torch.randn(3, each.weight_numel, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(each)(x, y, w), each(x, y, w))
    jacobian = torch.func.jacrev(product)(x[0], y[0])
    torch.testing.assert_close(jacobian, torch.autograd.functional.jacobian(lambda t: product(t, y[0]), x[0]))


@pytest.mark.parametrize("case", [MIXED, TURNED, ("2x0e+1o", "2x1o", "2x0e+1o", None)])
def test_has_right_derivatives(case):
    product = built(case, internal_weights=False).double()
    x, y = (t.detach().clone().requires_grad_() for t in operands_of(product, 2, dtype=torch.float64))
    w = torch.randn(product.weight_numel, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(product, (x, y, w))
    assert torch.autograd.gradgradcheck(product, (x, y, w))


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference_in_both_precisions(case):
    product = built(case)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        product.to(dtype)
        x, y = operands_of(product, 4, dtype=dtype)
        with use_reference():
            expected = product(x, y)
        torch.testing.assert_close(product(x, y), expected, rtol=tolerance, atol=tolerance)


def test_constants_keep_their_digits_through_dtypes():
    product, twin = built(CASES[-2]).double(), built(CASES[-2]).float().double()
    twin.load_state_dict(product.state_dict())
    x, y = operands_of(product, 3, dtype=torch.float64)
    torch.testing.assert_close(twin(x, y), product(x, y), rtol=1e-14, atol=1e-14)
    plain = TensorProduct(*CROSS)  # no weights: it takes float64 as it is
    x, y = operands_of(plain, 3, dtype=torch.float64)
    assert torch.equal(plain(x, y), copy.deepcopy(plain).double()(x, y))


def test_copies_pickles_and_takes_the_state_of_e3nn(o3):
    product = built(MIXED)
    assert set(product.state_dict()) == {"weight"}
    x, y = operands_of(product, 3)
    for twin in (copy.deepcopy(product), pickle.loads(pickle.dumps(product))):
        assert torch.equal(twin(x, y), product(x, y))
    theirs = o3.TensorProduct(*MIXED)
    assert any("output_mask" in key for key in theirs.state_dict())
    product.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(
        to_e3nn(product(x, y), MIXED[2]), theirs(to_e3nn(x, MIXED[0]), to_e3nn(y, MIXED[1]))
    )
    TensorProduct(*CROSS).load_state_dict(o3.TensorProduct(*CROSS).state_dict())


def test_prints_its_normalisation():
    assert repr(TensorProduct(*CROSS, path_normalization="path")) == (
        "TensorProduct(4x1o x 4x1o -> 4x1e | 4 paths | 0 weights | component, path)"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instructions": [(0, 1, 0, "uuu", False)]}, r"names block 1 of irreps_in2 '4x1o', which has 1"),
        ({"instructions": [(0, 0, 0, "uuv", False)]}, r"expects a mode of uvw, .*, got 'uuv'"),
        (
            {"instructions": [(0, 0, 0, "uvuv", False)]},
            r"expects multiplicities \(u, v, u \* v\), got \(4, 4, 4\)",
        ),
        ({"instructions": [(0, 0, 0, "uvw", False)]}, r"of mode uvw expects has_weight=True, got False"),
        ({"irreps_out": "4x1o"}, r"joins 1o and 1o into 1o, which do not couple"),
        ({"instructions": [(0, 0, 0, "uuu")]}, r"expects instructions \(i_in1, .*got \(0, 0, 0, 'uuu'\)"),
        ({"in1_var": [1, 1]}, r"expects in1_var of 1 numbers, one for each block of '4x1o', got 2"),
        ({"irrep_normalization": "L2"}, r"expects irrep_normalization of component, norm, none, got 'L2'"),
        ({"layout": "flat"}, r"expects layout of rows or e3nn, got 'flat'"),
        ({"internal_weights": True, "shared_weights": False}, r"cannot own weights that differ"),
    ],
)
def test_says_what_is_wrong_with_instructions(change, words):
    options = dict(zip(("irreps_in1", "irreps_in2", "irreps_out", "instructions"), CROSS, strict=True))
    with pytest.raises(ValueError, match=words):
        TensorProduct(**{**options, **change})


def test_says_what_it_expected():
    product = TensorProduct(*CROSS)
    with pytest.raises(ValueError, match=r"expects x of shape \(\.\.\., 3, 4\), got \(5, 12\)"):
        product(torch.randn(5, 12), torch.randn(5, 3, 4))
    with pytest.raises(ValueError, match=r"leading axes that broadcast, got \(5,\) and \(2,\)"):
        product(torch.randn(5, 3, 4), torch.randn(2, 3, 4))
    free = built(CASES[-1], shared_weights=False)
    x, y = operands_of(free, 3)
    with pytest.raises(
        ValueError, match="does not own its weights and expects weight as an argument, got none"
    ):
        free(x, y)
    with pytest.raises(ValueError, match=r"expects weight of shape \(\.\.\., 6\), got \(3, 5\)"):
        free(x, y, torch.randn(3, 5))
    with pytest.raises(ValueError, match=r"instruction 0 of .* has no weights"):
        product.weight_view_for_instruction(0)


@pytest.mark.parametrize("mode", ["uvw", "uvu", "uvv"])
def test_another_dtype_is_refused_by_name(mode):
    product = TensorProduct("4x1o", "4x0e", "4x1o", [(0, 0, 0, mode, True)]).float()
    x, y = torch.ones(3, 3, 4), torch.ones(3, 1, 4)
    words = (
        r"TensorProduct\(.*\) expects x, y and weight of one dtype, got torch.float64, .* and torch.float32"
    )
    for second in (y, y.double()):
        with pytest.raises(ValueError, match=words):
            product(x.double(), second)
    if mode == "uvw":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert product(x.bfloat16(), y).shape == x.shape
