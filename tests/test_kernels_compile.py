"""Every Triton kernel becomes machine code for sm_80 and sm_90, on a machine without a GPU.

An op adds a row for each of its kernels: (op, kernel, argument types, compile-time constants).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILE = """
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from equitorch.ops.{op}.triton import {kernel} as kernel

signature = {{name: kind for kind, names in {signature}.items() for name in names.split()}}
signature = {{name: signature[name] for name in kernel.arg_names}}
for capability in (80, 90):
    source = ASTSource(fn=kernel, signature=signature, constexprs={constants})
    assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
"""
VECTORS = "{{'NORMALIZE': True, 'ACC': tl.float{}, 'BLOCK': 128}}"
SWITCHES = "NORMALIZE ACC BLOCK"
ENTRIES = {"*fp32": "a b out value", "*i32": "left right start", "i32": "I J K C"}
KERNELS = [
    (
        "bilinear",
        "_bilinear",
        {**ENTRIES, "constexpr": "A_WIDE B_WIDE ACC BLOCK"},
        "{'A_WIDE': True, 'B_WIDE': False, 'ACC': tl.float32, 'BLOCK': 128}",
    ),
    (
        "bilinear",
        "_summed",
        {**ENTRIES, "constexpr": "ACC BLOCK"},
        "{'ACC': tl.float32, 'BLOCK': 128}",
    ),
    (
        "harmonics",
        "_harmonics",
        {"*fp32": "x out value first", "*i32": "start left axis", "i32": "N LMAX", "constexpr": SWITCHES},
        VECTORS.format(32),
    ),
    (
        "harmonics",
        "_gradient",
        {"*fp32": "g x y out slope", "*i32": "start left axis", "i32": "N ROWS", "constexpr": SWITCHES},
        VECTORS.format(32),
    ),
    (
        "harmonics",
        "_second",
        {
            "*fp64": "g x h y grad_g grad_x slope from_slope",
            "*i32": "start left axis from_start from_row from_axis",
            "i32": "N ROWS BELOW",
            "constexpr": SWITCHES,
        },
        VECTORS.format(64),
    ),
]


@pytest.mark.parametrize(
    ("op", "kernel", "signature", "constants"), KERNELS, ids=[f"{row[0]}{row[1]}" for row in KERNELS]
)
def test_compiles_without_a_gpu(op, kernel, signature, constants):
    pytest.importorskip("triton", reason="Triton is not installed")
    program = COMPILE.format(op=op, kernel=kernel, signature=signature, constants=constants)
    compiled = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=compiled, check=True)
