"""Models: plain tensors in, energies and tensor properties out. Each is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equitorch.models.compiled import compile_with_gradient as compile_with_gradient
    from equitorch.models.diagram_net import DiagramNet as DiagramNet
    from equitorch.models.equiformer_v2 import EquiformerV2 as EquiformerV2
    from equitorch.models.escn import ESCN as ESCN
    from equitorch.models.esen import ESEN as ESEN
    from equitorch.models.mace import MACE as MACE
    from equitorch.models.nequip import NequIP as NequIP
    from equitorch.models.potential import Potential as Potential
    from equitorch.models.tensornet import TensorNet as TensorNet
    from equitorch.models.tensornet2 import TensorNet2 as TensorNet2

_FILES = {
    "DiagramNet": "diagram_net",
    "ESCN": "escn",
    "ESEN": "esen",
    "EquiformerV2": "equiformer_v2",
    "MACE": "mace",
    "NequIP": "nequip",
    "Potential": "potential",
    "TensorNet": "tensornet",
    "TensorNet2": "tensornet2",
    "compile_with_gradient": "compiled",
}


def __getattr__(name: str) -> Any:
    """Import the file of a model only when somebody wants that model: each brings layers of its own."""
    if name not in _FILES:
        raise AttributeError(
            f"module 'equitorch.models' has no attribute {name!r}; it has {', '.join(_FILES)}"
        )
    globals()[name] = value = getattr(importlib.import_module(f"equitorch.models.{_FILES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FILES})
