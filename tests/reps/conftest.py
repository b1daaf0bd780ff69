"""The oracle that many of these tests ask."""

import warnings

import pytest


@pytest.fixture(scope="session")
def o3():
    """``e3nn.o3``, whose import warns about TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
