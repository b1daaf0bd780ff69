"""Numbers that the original eSCN and EquiformerV2 code gave, where the shared folder is at hand."""

from __future__ import annotations

import functools
import os
import pathlib
from typing import Any

import pytest
import torch

SHARED = pathlib.Path(os.environ.get("EQUITORCH_SHARED", pathlib.Path(__file__).parents[2] / "shared"))


@functools.cache
def _load(path: pathlib.Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


def primitives() -> dict[str, Any]:
    """Frames, matrices, orders and layers; skips the test without the file."""
    path = SHARED / "ref" / "escn_primitives.pt"
    if not path.exists():
        pytest.skip("set EQUITORCH_SHARED to the folder with ref/escn_primitives.pt")
    return _load(path)
