"""equitorch/__init__.py"""

import json
import subprocess
import sys

import pytest

import equitorch

HEAVY = (
    "torch._dynamo",
    "numba",
    "ase",
    "triton",
    "vesin",
    "e3nn",
    "torch_geometric",
    "pydantic",
    "matplotlib",
)
COUNT = """
import json, sys, time, torch
before, start = set(sys.modules), time.process_time()
import equitorch
{use}
print(json.dumps([time.process_time() - start, sorted(set(sys.modules) - before)]))
"""


def measure(use):
    """CPU seconds and modules that equitorch takes beyond torch, in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(use=use)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_is_light():
    seconds, modules = [], []
    for _ in range(3):  # a busy machine may need a second look
        second, modules = measure("equitorch.Potential, equitorch.AtomGraph, equitorch.Irreps")
        seconds.append(second)
        if second <= 0.2:
            break
    assert not set(HEAVY) & set(modules)
    assert min(seconds) <= 0.2


def test_the_check_can_fail():
    _, modules = measure("equitorch.EquitorchCalculator")
    assert "ase" in modules


def test_offers_its_public_names():
    assert {"AtomGraph", "EquitorchCalculator", "Irrep", "Irreps", "Potential", "__version__"} <= set(
        dir(equitorch)
    )
    assert equitorch.Potential is equitorch.models.potential.Potential
    assert equitorch.__version__.count(".") == 2


def test_says_what_it_has():
    with pytest.raises(AttributeError, match=r"no attribute 'Potentail'; it has AtomGraph"):
        equitorch.Potentail  # noqa: B018
