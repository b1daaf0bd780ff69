"""One file per potential: its weights, and a header that says how to rebuild it from our own classes.

The header names the model from the literal table :data:`MODELS`; nothing else can be built from a file, and
nothing is ever unpickled or fetched.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import platform
import threading
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from equitorch.models.container import peek_container, read_container, write_container
from equitorch.models.potential import Potential

MODELS = {
    "tensornet": "equitorch.models.tensornet:TensorNet",
    "tensornet2": "equitorch.models.tensornet2:TensorNet2",
    "nequip": "equitorch.models.nequip:NequIP",
    "mace": "equitorch.models.mace:MACE",
    "equiformer_v2": "equitorch.models.equiformer_v2:EquiformerV2",
    "escn": "equitorch.models.escn:ESCN",
    "esen": "equitorch.models.esen:ESEN",
}

FORMAT = 1
UNITS = {"energy": "eV", "length": "Angstrom"}

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "options": dict,
    "dtype": str,
    "species": list,
    "reference_energies": dict,
    "scale": (float, int, dict),
    "shift": dict,
    "offset": (float, int),
    "reduce": str,
    "units": dict,
    "metadata": dict,
}
_DTYPES = {
    str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
}


def save_potential(
    potential: Potential,
    path: str | PathLike[str],
    *,
    metadata: Mapping[str, Any] | None = None,
    data_hash: str | None = None,
) -> None:
    """Write a potential into one file, so that a crash leaves the old file or the new one.

    Args:
        potential: its model must be in :data:`MODELS`, and rebuildable from ``model.options``.
        path: usually ``something.eqt``.
        metadata: anything JSON can hold (metrics, citation keys); NaN becomes null.
        data_hash: fingerprint of the training data.

    Raises:
        ValueError: if the model is not in the table, or options or metadata are not JSON.
    """
    header = describe(potential) | {"data_hash": data_hash, "metadata": _without_nan(dict(metadata or {}))}
    write_container(path, header, potential.model.state_dict())


def load_potential(
    path: str | PathLike[str], *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Potential:
    """Rebuild the potential that a file, or a run's folder, describes, in evaluation mode.

    Args:
        path: the file, or a folder with a ``model.eqt`` in it.
        device: where to put it; the CPU by default.
        dtype: of the model; by default as it was saved.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no model file, is damaged, or needs another version of this library.
    """
    path = model_path(path)
    header, tensors = read_container(path)
    _check(path, header)
    try:
        with _at_most(sum(t.numel() for t in tensors.values())):
            model = model_class(header["model"])(**header["options"])
        saved = _DTYPES[header["dtype"]]
        if any(p.dtype != saved for p in model.parameters()):
            model.to(saved)  # only then: constants may be more precise than the weights
        _check_shapes(model, tensors)
        model.load_state_dict(tensors, assign=True)
        potential = Potential(
            model,
            species=header["species"],
            reference_energies=_per_element(header["reference_energies"]),
            scale=_per_element(header["scale"]) if isinstance(header["scale"], dict) else header["scale"],
            shift=_per_element(header["shift"]),
            offset=header["offset"],
            reduce=header["reduce"],
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} describes a {header['model']} that cannot be built: {error}") from None
    return potential.to(device=device, dtype=dtype).eval()


def read_header(path: str | PathLike[str]) -> dict[str, Any]:
    """What a model file says about itself, without building anything or reading the weights.

    Returns:
        format, library, model, options, dtype, parameters, species, reference_energies, scale, shift, offset,
        reduce, cutoff, units, versions, data_hash, metadata, and sha256.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no model file, is truncated, or has another format.
    """
    path = model_path(path)
    header = peek_container(path)
    _check(path, header)
    return header


def model_path(path: str | PathLike[str]) -> Path:
    """The model file itself: a run's folder stands for the ``model.eqt`` in it.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    file = path / "model.eqt" if path.is_dir() else path
    if not file.is_file():
        what = f"the folder {path} holds no model.eqt" if path.is_dir() else f"there is no model file {path}"
        raise FileNotFoundError(f"{what}; name a file written by Potential.save, or a run's folder")
    return file


def model_class(name: str) -> type[nn.Module]:
    """The class of a model by its name in :data:`MODELS`.

    Raises:
        ValueError: if there is no such name.
    """
    if name not in MODELS:
        raise ValueError(f"model {name!r} is not one of {', '.join(MODELS)}")
    module, _, kind = MODELS[name].partition(":")
    found: type[nn.Module] = getattr(importlib.import_module(module), kind)
    return found


def describe(potential: Potential) -> dict[str, Any]:
    """All but the weights, as plain JSON values.

    Raises:
        ValueError: if the model's class is not in :data:`MODELS`.
    """
    model, species = potential.model, potential.species

    def by_element(table: Tensor) -> dict[str, float]:
        return {str(z): float(table[z]) for z in species}

    return {
        "format": FORMAT,
        "library": _library(),
        "model": _name_of(model),
        "options": model.options,
        "dtype": str(potential.dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in model.parameters()),
        "species": list(species),
        "reference_energies": by_element(potential.reference_energies),
        "scale": by_element(potential.scale)
        if potential.scales_by_element
        else float(potential.scale[species[0]]),
        "shift": by_element(potential.shift),
        "offset": float(potential.offset),
        "reduce": potential.reduce,
        "cutoff": potential.cutoff,
        "units": UNITS,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }


def _name_of(model: nn.Module) -> str:
    kind = f"{type(model).__module__}:{type(model).__qualname__}"
    for name, target in MODELS.items():
        if target == kind:
            return name
    raise ValueError(
        f"a model file can hold {', '.join(MODELS)}, got {type(model).__qualname__}; "
        "keep another model's state_dict, or add a line to equitorch.models.checkpoint.MODELS"
    )


def _check(path: Path, header: Mapping[str, Any]) -> None:
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {header.get('format')!r}, equitorch {_library()} reads format {FORMAT}; "
            "update with: pip install -U equitorch-gdl"
        )
    for key, kind in _FIELDS.items():
        if not isinstance(header.get(key), kind):
            raise ValueError(f"{path} has a header without a usable {key!r}, got {header.get(key)!r}")
    if header["model"] not in MODELS:
        raise ValueError(
            f"{path} holds a model {header['model']!r}, equitorch {_library()} knows {', '.join(MODELS)}; "
            "update with: pip install -U equitorch-gdl"
        )
    if header["units"] != UNITS:
        raise ValueError(f"{path} has the units {header['units']}, expected {UNITS}")
    if header["dtype"] not in _DTYPES:
        raise ValueError(f"{path} has the dtype {header['dtype']!r}, expected one of {', '.join(_DTYPES)}")


def _check_shapes(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in tensors.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise ValueError(f"{key} should be {expected.get(key, 'absent')}, is {found.get(key, 'absent')}")


@contextlib.contextmanager
def _at_most(elements: int) -> Iterator[None]:
    """Stop building a network that outgrows the weights at hand: a file's options are not to be trusted."""
    here, total = threading.get_ident(), 0
    seen: set[int] = set()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        if parameter is not None and threading.get_ident() == here and id(parameter) not in seen:
            seen.add(id(parameter))
            total += parameter.numel()
            if total > elements:
                raise ValueError(f"its options ask for more weights than the {elements} in the file")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _per_element(values: Mapping[str, float]) -> dict[int, float]:
    return {int(z): value for z, value in values.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _library() -> str:
    try:
        return version("equitorch-gdl")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
