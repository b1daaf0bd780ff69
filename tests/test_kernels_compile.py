"""Every Triton kernel becomes machine code for sm_80 and sm_90 that keeps to registers, without a GPU.

An op adds a row for each of its kernels: (op, kernel, argument types, compile-time constants and,
where it is not four, the number of warps; arguments that are "aligned" are multiples of 16).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILE = """
import importlib, pathlib, subprocess, tempfile
import torch, triton, triton.language as tl
from equitorch.layers import EquivariantConvolution
from equitorch.ops.diagrams import linear_plan
from equitorch.ops.diagrams.program import without_whole
from equitorch.ops.gaunt.form import Form, Program, Request
from equitorch.ops.radial.knots import polynomials
from equitorch.reps import Irreps
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

def coupling(slot, lmax, most=24):
    ends = [Irreps.spherical_harmonics(l) for l in (lmax, 3, 3)]
    conv = EquivariantConvolution(*ends, 128)
    unrolled = importlib.import_module("equitorch.ops.convolution.triton").unrolled
    return unrolled(slot, [*8 * [None], *conv.form], [*conv.dims, 1, conv.form_name], most=most)

def sphere(parity, lmax, precision, backward=False):
    kernel = importlib.import_module("equitorch.ops.gaunt.triton")
    program = Program((0, 1), (Request(3 if parity == "odd" else 2, ((0, 1),)),))
    program = program.derivative((0, 1), (0,)) if backward else program
    form = Form(lmax, lmax, lmax, parity)
    launch, *more = kernel.plan(program, form, kernel.room(precision, 9))
    named = {{"JOB": launch.job, "POINTS": kernel._offsets(form)[1], "ADD": False, "PRECISION": precision}}
    return {{**named, **kernel.settings(launch.job, precision, 166912), "aligned": "xs outs tables C"}}

def diagrams(group, order, way, level=0, form="", split=False):
    kernel = importlib.import_module("equitorch.ops.diagrams.triton")
    plan = linear_plan(group, 4, [order], [order], form)
    if way == "analysis":
        launches = kernel.analysis_launches(without_whole(plan.keys_in[0])[0], form, split, True)
    else:
        launches = kernel.synthesis_launches(plan.keys_out[0], form)
    common = {{"SIZES": launches.sizes, "ACC": tl.float32, "aligned": "memory scale C"}}
    if level is None:
        side, wide = kernel.box(order, 64, 32)
        own = {{"SUMS": launches.axes[0], "SLOTS": split * launches.slots, "SIDE": side, "BE": wide}}
        return {{**common, **own, "num_warps": 1}}
    one = launches.levels[level]
    own = {{"LEVEL": one, "BR": 32, "BJ": 16, "BC": 32, "maxnreg": kernel.registers(one, torch.float32)}}
    return {{**common, **own, **kernel.constants(form)}}

resources = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
for row, (op, name, types, constants) in enumerate({rows}):
    kernel = getattr(importlib.import_module(f"equitorch.ops.{{op}}.triton"), name)
    types = {{argument: kind for kind, names in types.items() for argument in names.split()}}
    constants = eval(constants)
    options = {{"num_warps": constants.pop("num_warps", 4), "maxnreg": constants.pop("maxnreg", None)}}
    options["num_stages"] = constants.pop("num_stages", 3)
    aligned, capabilities = constants.pop("aligned", "").split(), constants.pop("capabilities", (80, 90))
    signature = {{name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}}
    places = [(n, signature[name]) for n, name in enumerate(kernel.arg_names) if name in aligned]
    whole = [(n,) for n, kind in places if isinstance(kind, str)]
    parts = [(n, i) for n, kind in places if isinstance(kind, tuple) for i in range(len(kind))]
    attrs = {{place: [["tt.divisibility", 16]] for place in whole + parts}}
    for capability in capabilities:
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attrs)
        binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(binary.asm["cubin"])
            file.flush()
            used = subprocess.check_output([resources, "--dump-resource-usage", file.name], text=True)
        print(row, capability, *(x for x in used.split() if x.startswith("STACK:")), flush=True)
"""
SINGLE, DOUBLE = "'ACC': tl.float32, 'BLOCK': 128", "'ACC': tl.float64, 'BLOCK': 128"
WARP = "'ACC': tl.float32, 'BLOCK': 64, 'num_warps': 1"
FOUR = WARP.replace("64", "128")  # channels of a thread
ENTRIES = {"*fp32": "a b out value", "*i32": "left right start", "i32": "I J K C"}
TABLE = "'POLYNOMIALS': polynomials(1), 'SIGN': -1, " + SINGLE
EDGE = {  # of a rotation, single precision: what lies next to one another is read at once
    "_into": ({"*fp32": "feature matrix out", "*i64": "node", "i32": "C blocks"}, FOUR),
    "_back": ({"*fp32": "message matrix out", "*i64": "start edge", "i32": "C blocks"}, FOUR),
    "_overlap": (
        {"*fp32": "feature message out", "*i64": "node", "i32": "edges C"},
        "'aligned': 'feature message C', 'SUMS': 64, 'EDGES': 4, 'VECTOR': 4, " + WARP.replace("64", "32"),
    ),
}
ONE, TWO, THREE = (n * ("*fp32",) for n in (1, 2, 3))
DIAGRAMS = [  # number of sectors, then what is compiled: None for sums over axes
    (2, "'S', 2, 'analysis', None, split=True"),
    (2, "'S', 2, 'analysis', None"),
    (2, "'S', 2, 'analysis', 0, split=True"),
    (2, "'S', 2, 'analysis', 1, split=True"),
    (2, "'S', 2, 'analysis'"),
    (3, "'S', 2, 'synthesis'"),
    (3, "'S', 3, 'analysis', None, split=True"),
    (3, "'S', 3, 'analysis', None"),
    *((3, f"'S', 3, 'analysis', {level}, split=True") for level in (0, 1, 2)),
    *((3, f"'S', 3, 'analysis', {level}") for level in (0, 1)),
    *((4, f"'S', 3, 'synthesis', {level}") for level in (0, 1)),
    *((1, f"{group}, 'analysis'") for group in ("'O', 2", "'O', 3")),
    *((2, f"{group}, 'synthesis'") for group in ("'O', 2", "'O', 3")),
    *((2, f"'Sp', 2, 'synthesis', form='Sp:{basis}'") for basis in ("block", "interleaved")),
    (1, "'Sp', 2, 'analysis', form='Sp:block'"),
]
SPHERE = {TWO: "xs", ONE: "outs", "*fp32": "tables", "i32": "columns C"}
KERNELS = [
    ("bilinear", "_bilinear", ENTRIES, f"{{'A_WIDE': True, 'B_WIDE': False, {SINGLE}}}"),
    ("bilinear", "_summed", ENTRIES, f"{{{SINGLE}}}"),
    (
        "contraction",
        "_run",
        {
            "*fp32": "x w value scratch out sums",
            "*i64": "order begin",
            "*i32": "start left right node_out species_out",
            "i32": "J GIVEN WEIGHTS COMPUTED NODE_OUT SPECIES_OUT C",
        },
        "{'ACC': tl.float32, 'BLOCK': 32, 'num_warps': 1}",
    ),
    (
        "convolution",
        "_gather",
        {"*fp32": "feature filters weight out", "*i64": "other start edge pair", "i32": "C blocks"},
        f"{{'FORM': coupling(3, 3), {WARP}}}",
    ),
    (
        "convolution",
        "_gather",
        {
            "*fp64": "feature filters out",
            "*bf16": "weight",
            "*i64": "other start edge pair",
            "i32": "C blocks",
        },
        f"{{'FORM': coupling(0, 2, 12), {WARP.replace('32', '64', 1)}}}",
    ),
    (
        "convolution",
        "_weights",
        {"*fp32": "feature filters result out", "*i64": "source target pair_edge", "i32": "C blocks"},
        f"{{'FORM': coupling(2, 3), 'SIDES': 2, {WARP}}}",
    ),
    (
        "convolution",
        "_filters",
        {"*fp32": "feature weight result out", "*i64": "source target pair", "i32": "C"},
        f"{{'FORM': coupling(1, 3), {WARP}}}",
    ),
    (
        "harmonics",
        "_harmonics",
        {"*fp32": "x out value first", "*i32": "start left axis", "i32": "N LMAX"},
        f"{{'NORMALIZE': True, {SINGLE}}}",
    ),
    (
        "harmonics",
        "_gradient",
        {"*fp32": "g x y out slope", "*i32": "start left axis", "i32": "N ROWS"},
        f"{{'NORMALIZE': True, {SINGLE}}}",
    ),
    (
        "harmonics",
        "_second",
        {
            "*fp64": "g x h y grad_g grad_x slope from_slope",
            "*i32": "start left axis from_start from_row from_axis",
            "i32": "N ROWS BELOW",
        },
        f"{{'NORMALIZE': True, {DOUBLE}}}",
    ),
    (
        "message",
        "_gather",
        {"*fp32": "weight feature out", "*i64": "other start edge pair degree", "i32": "R D C"},
        f"{{'THROUGH': True, 'ROWS': 9, {SINGLE}}}",
    ),
    (
        "message",
        "_weights",
        {"*fp32": "sender receiver out", "*i64": "source target pair_edge degree", "i32": "R D C"},
        f"{{'ROWS': 9, 'DEGREES': 3, {SINGLE}}}",
    ),
    (
        "density",
        "_receivers",
        {"*fp32": "weight species angle out", "*i64": "source start pair degree", "i32": "R D C nodes"},
        f"{{'ROWS': 9, {SINGLE}}}",
    ),
    (
        "density",
        "_weights",
        {
            "*fp32": "species angle receiver out",
            "*i64": "source target pair_edge degree",
            "i32": "R D C nodes",
        },
        f"{{'ROWS': 9, 'DEGREES': 3, {SINGLE}}}",
    ),
    (
        "density",
        "_angles",
        {"*fp32": "weight species receiver out", "*i64": "source target pair degree", "i32": "R D C nodes"},
        "{'ROWS': 9, 'ACC': tl.float32, 'BLOCK': 64, 'num_warps': 1}",
    ),
    (
        "density",
        "_species",
        {"*fp64": "weight angle receiver out", "*i64": "start edge node pair degree", "i32": "R D C"},
        f"{{'THROUGH': True, 'ROWS': 9, {DOUBLE}}}",
    ),
    (
        "radial",
        "_columns",
        {"*fp32": "table point place out", "i32": "last N"},
        f"{{'num_warps': 1, {TABLE}}}",
    ),
    (
        "radial",
        "_points",
        {"*fp32": "table column place out", "i32": "last N"},
        f"{{'num_warps': 1, {TABLE}}}",
    ),
    (
        "radial",
        "_table",
        {"*fp32": "column point place out", "*i64": "points start", "i32": "last N"},
        f"{{'POINTS': 8, {TABLE}}}",
    ),
    *(
        ("rotate", name, types, f"{{'L': {lmax}, 'M': {mmax}, 'JOINT': 2, {constants}}}")
        for lmax, mmax in ((2, 2), (4, 2), (6, 2), (6, 3))
        for name, (types, constants) in EDGE.items()
    ),
    (
        "rotate",
        "_overlap",
        {"*fp64": "feature message out", "*i64": "node", "i32": "edges C"},
        "{'L': 4, 'M': 2, 'JOINT': 2, 'SUMS': 32, 'EDGES': 4, 'VECTOR': 1, 'BLOCK': 8, 'ACC': tl.float64, "
        "'num_warps': 1}",
    ),
    *(
        ("gaunt", "_gaunt", SPHERE, f"sphere('even', {lmax}, {precision!r})")
        for precision, lmaxs in (("ieee", (2, 4, 6, 8)), ("tf32x3", range(2, 7)))
        for lmax in lmaxs
    ),
    *(  # sm_80 has a few more numbers than registers there
        ("gaunt", "_gaunt", SPHERE, f"{{**sphere('even', {lmax}, 'tf32x3'), 'capabilities': (90,)}}")
        for lmax in (7, 8)
    ),
    ("gaunt", "_gaunt", SPHERE, "sphere('odd', 4, 'ieee')"),
    (
        "gaunt",
        "_gaunt",
        {THREE: "xs", TWO: "outs", "*fp32": "tables", "i32": "columns C"},
        "sphere('even', 4, 'ieee', backward=True)",
    ),
    *(
        (
            "diagrams",
            "_axes" if "None" in what else "_gather",
            {(3 + sectors) * ("*fp32",): "memory", "*fp32": "scale", "i32": "n parts C blocks pieces"},
            f"diagrams({what})",
        )
        for sectors, what in DIAGRAMS
    ),
    ("squash", "_squash", {"*fp32": "x out", "i32": "C"}, f"{{'ROWS': 9, {SINGLE}}}"),
    ("squash", "_slope", {"*fp32": "x h out", "i32": "C"}, f"{{'ROWS': 9, {SINGLE}}}"),
    ("squash", "_curvature", {"*fp64": "x h k out", "i32": "C"}, f"{{'ROWS': 9, {DOUBLE}}}"),
    ("jet", "_silu", {"*fp64": "x out", "i32": "N"}, f"{{'ORDERS': 3, {DOUBLE}}}"),
    ("jet", "_silu_backward", {"*fp32": "grad x out", "i32": "N"}, f"{{'ORDERS': 3, {SINGLE}}}"),
    (
        "jet",
        "_product",
        {"*fp32": "a x out", "i32": "points F"},
        f"{{'ADJOINT': True, 'ORDERS': 3, 'num_warps': 1, {SINGLE}}}",
    ),
]


CRAMPED = (
    "squash",
    "_curvature",
    {"*fp64": "x h k out", "i32": "C"},
    f"{{'maxnreg': 32, 'ROWS': 9, {DOUBLE}}}",
)


@pytest.fixture(scope="module")
def compiled():
    """What one process without the interpreter says of each row: its number, the capability, the stack."""
    pytest.importorskip("triton", reason="Triton is not installed")
    clean = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE.format(rows=[*KERNELS, CRAMPED])]
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True)
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("row", range(len(KERNELS)), ids=[op + name for op, name, *_ in KERNELS])
def test_compiles_without_a_gpu_and_keeps_to_registers(row, compiled):
    lines, errors = compiled
    found = [line for line in lines if line.startswith(f"{row} ")]
    capabilities = (90,) if "'capabilities': (90,)" in KERNELS[row][3] else (80, 90)
    assert found == [f"{row} {capability} STACK:0" for capability in capabilities], errors


def test_the_check_can_fail(compiled):
    """Three operands of nine rows in double precision do not fit 32 registers."""
    assert not compiled[0][-1].endswith("STACK:0")
