"""fairchem checkpoints (version 1): EquiformerV2 and its relatives, as models and potentials of this library.

A file is read without running any code from it. What its normalisers and element references add to a
model's energies goes to :class:`Potential`.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from torch import Tensor, nn

from equitorch.interop.fairchem_file import read
from equitorch.interop.fairchem_keys import fill, gather
from equitorch.models.checkpoint import model_class
from equitorch.models.potential import Potential

Source = str | PathLike[str] | Mapping[str, Any]

# A name that only one family's tensors have; our model's name; the module with its `options` and `keys`.
FAMILIES: Final = (
    (r"blocks\.0\.ga\.so2_conv_1\..*", "equiformer_v2", "equitorch.interop.fairchem_equiformer_v2"),
    (r"layer_blocks\.0\.message_block\..*", "escn", "equitorch.interop.fairchem_escn"),
    (r"blocks\.0\.edge_wise\..*", "esen", "equitorch.interop.fairchem_esen"),
)
_FOREIGN: Final = ((r"blocks\.0\.ga\.so2_linear_1\..*", "EquiformerV3"),)
_PREFIX: Final = re.compile(
    r"(module\.)*((backbone|bb)\.|output_heads\.[^.]+\.(head\.)?(?=(energy|force)_block)|head\.)?"
)
_IGNORED: Final = re.compile(
    r"(SO3_rotation|SO3_grid|mappingReduced|distance_expansion)\..*|(.*\.)?(expand_index|balance_degree_weight"
    r"|Jd_\d+|n_averaged)"
)
_NOT_EQUIVARIANT: Final = re.compile(r"(module\.)*output_heads\.stress\..*")
_REFERENCES: Final = "energy_lin_ref"


def load(
    source: Source, config: Mapping[str, Any] | str | PathLike[str] | None = None, *, ema: bool | None = None
) -> nn.Module:
    """Rebuild a published model: same weights, same energies, in ``mode="compat"`` and ready for evaluation.

    Energies are what the network itself gives; :func:`load_potential` adds what its training took away.

    Args:
        source: a checkpoint file, what such a file holds, or its tensors by name. In a mapping, tensors are
            under ``"state_dict"`` or ``"params"``.
        config: the model's options, or a YAML file with them; by default those inside ``source``.
        ema: take the averaged weights; by default where the checkpoint has them, as fairchem does.

    Raises:
        ValueError: if the file cannot be read without running code, its model is of no known family, an
            option has no counterpart here, or tensors are missing, unknown or of the wrong shape.

    Source:
        Liao et al. 2023, arXiv:2306.12059 (EquiformerV2); checked against fairchem-core 1.10.
    """
    return _build(_content(source), config, ema)


def load_potential(
    source: Source,
    config: Mapping[str, Any] | str | PathLike[str] | None = None,
    *,
    species: Sequence[int] | None = None,
    ema: bool | None = None,
) -> Potential:
    """The model of :func:`load` with its normaliser and element references: energies in eV.

    Forces are gradients, as of every potential here; those of a published head are ``"direct_forces"``.

    Args:
        source: as for :func:`load`; without normalisers, those of the config's data set are taken.
        config: as for :func:`load`.
        species: atomic numbers that it was trained on; by default all in its table of elements.
        ema: as for :func:`load`.

    Raises:
        ValueError: as :func:`load`.
    """
    content = _content(source)
    whole = _config(content, config)
    mean, scale = _normalizer(content, whole, ("energy", "target"))
    force_mean, force_scale = _normalizer(content, whole, ("forces", "force", "grad_target"))
    if force_mean != 0:
        raise ValueError(f"fairchem's normaliser of forces has mean 0, got {force_mean:g}")
    model = _build(content, config, ema, force_scale=force_scale / scale)
    known = list(range(1, int(model.options["max_z"]))) if species is None else list(species)  # type: ignore[index]
    references = _references(content, scale, known, used=bool(_options(whole).get("use_energy_lin_ref")))
    return Potential(model, species=known, reference_energies=references, scale=scale, offset=mean).eval()


def parameters(model: nn.Module, *, gradients: bool = False) -> dict[str, Tensor]:
    """The weights of a model by fairchem's names, in its shapes: the way back.

    Args:
        model: as :func:`load` returns it.
        gradients: give the gradients by those weights instead, zero where there is none.

    Raises:
        ValueError: if the model's class is none of the families above.
    """
    for _, name, module in FAMILIES:
        if isinstance(model, model_class(name)):
            family = importlib.import_module(module)
            return gather(model, family.keys(model.settings), gradients=gradients)
    raise ValueError(
        f"fairchem has no {type(model).__name__}; its weights have names there for "
        f"{', '.join(name for _, name, _ in FAMILIES)}"
    )


def canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors without the prefixes of its layouts, and without constants.

    Heads for stress are left out with a warning that lists their tensors: they are not equivariant.

    Raises:
        ValueError: if two tensors get one name.

    >>> import torch
    >>> list(canonical({"module.module.backbone.norm.affine_weight": torch.ones(1)}))
    ['norm.affine_weight']
    """
    found: dict[str, Tensor] = {}
    dropped = [name for name in tensors if _NOT_EQUIVARIANT.fullmatch(name)]
    if dropped:
        warnings.warn(
            f"left out a head for stress, which is not equivariant: {', '.join(dropped)}", stacklevel=3
        )
    for full, value in tensors.items():
        name = _PREFIX.sub("", full, count=1)
        if _IGNORED.fullmatch(name) or full in dropped:
            continue
        if name in found:
            raise ValueError(f"the fairchem checkpoint holds two tensors {name!r}")
        found[name] = value.detach()
    return found


def _build(
    content: Mapping[str, Any],
    config: Mapping[str, Any] | str | PathLike[str] | None,
    ema: bool | None,
    force_scale: float = 1.0,
) -> nn.Module:
    tensors = _tensors(content, ema)
    tensors.pop(_REFERENCES, None)
    name, family = _family(tensors)
    options = family.options(_model_options(content, config), tensors)
    if force_scale != 1.0 and options.get("direct_forces"):
        options["force_scale"] = force_scale
    model = model_class(name)(**options)
    model = model.to(next(t.dtype for t in tensors.values() if t.is_floating_point()))
    fill(model, family.keys(model.settings), tensors)
    return model.eval()


def _content(source: Source) -> Mapping[str, Any]:
    """A checkpoint's entries, its tensors under ``"state_dict"``."""
    content = source if isinstance(source, Mapping) else read(Path(source))
    for key in ("state_dict", "params", "ema_state_dict", "model_state_dict"):
        if isinstance(content.get(key), Mapping):
            return {**content, "state_dict": content[key]}
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return {"state_dict": content}
    raise ValueError(
        "a fairchem checkpoint holds its tensors under 'state_dict' or 'params', got "
        f"{', '.join(map(str, content)) or 'nothing'}"
    )


def _tensors(content: Mapping[str, Any], ema: bool | None) -> dict[str, Tensor]:
    tensors = canonical(content["state_dict"])
    state = content.get("ema")
    averaged = state.get("shadow_params") if isinstance(state, Mapping) else None
    if ema and not averaged:
        raise ValueError("the fairchem checkpoint holds no averaged weights; load it with ema=False")
    if not averaged or ema is False:
        return tensors
    names = [name for name in tensors if name != _REFERENCES]  # it does not learn
    if len(averaged) == len(tensors):
        names = list(tensors)
    shapes = [tuple(t.shape) for t in averaged]
    if shapes != [tuple(tensors[name].shape) for name in names]:
        raise ValueError(
            f"the fairchem checkpoint holds {len(averaged)} averaged weights that do not match its "
            f"{len(names)} tensors; load it with ema=False"
        )
    return tensors | dict(zip(names, averaged, strict=True))


def _family(tensors: Mapping[str, Tensor]) -> tuple[str, ModuleType]:
    for pattern, name, module in FAMILIES:
        if any(re.fullmatch(pattern, key) for key in tensors):
            return name, importlib.import_module(module)
    for pattern, name in _FOREIGN:
        if any(re.fullmatch(pattern, key) for key in tensors):
            raise ValueError(
                f"the fairchem checkpoint holds a model of {name}, which has no counterpart here"
            )
    raise ValueError(
        "the fairchem checkpoint holds a model of no family known here "
        f"({', '.join(name for _, name, _ in FAMILIES)}); its tensors begin with "
        f"{', '.join(list(tensors)[:3])}"
    )


def _config(
    content: Mapping[str, Any], config: Mapping[str, Any] | str | PathLike[str] | None
) -> Mapping[str, Any]:
    if isinstance(config, str | PathLike):
        import yaml

        config = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    found = content.get("config") if config is None else config
    if not isinstance(found, Mapping):
        raise ValueError(
            "the fairchem checkpoint comes without a config; pass the run's, config='config.yml'"
        )
    return found


def _options(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model's part of a config, wherever its layout puts it."""
    places: list[Any] = [
        config,
        config.get("model_attributes"),
        config.get("model"),
        config.get("model_config"),
    ]
    for place in places:
        for options in (place, place.get("backbone") if isinstance(place, Mapping) else None):
            if isinstance(options, Mapping) and "num_layers" in options:
                return options
    raise ValueError(
        "the fairchem config holds no options of a model (num_layers, ...), got "
        f"{', '.join(map(str, config))}"
    )


def _model_options(
    content: Mapping[str, Any], config: Mapping[str, Any] | str | PathLike[str] | None
) -> Mapping[str, Any]:
    whole = _config(content, config)
    model = whole.get("model")
    heads = model.get("heads", {}) if isinstance(model, Mapping) else {}
    for name, head in heads.items():
        if isinstance(head, Mapping) and name == "energy" and head.get("reduce", "sum") != "sum":
            raise ValueError(f"fairchem's energy head sums over atoms, got reduce={head['reduce']!r}")
    return _options(whole)


def _normalizer(
    content: Mapping[str, Any], config: Mapping[str, Any], names: Sequence[str]
) -> tuple[float, float]:
    """Mean and scale of a property: of the checkpoint, or of the config's data set, else 0 and 1."""
    saved = content.get("normalizers")
    data = config.get("dataset")
    data = data[0] if isinstance(data, Sequence) and not isinstance(data, str) and data else data
    data = data.get("train", data) if isinstance(data, Mapping) else {}
    for name in names:
        state = saved.get(name) if isinstance(saved, Mapping) else None
        if isinstance(state, Mapping):
            return float(state["mean"]), float(state["rmsd"] if "rmsd" in state else state["std"])
    for name in names:
        if data.get("normalize_labels") and f"{name}_std" in data:
            return float(data.get(f"{name}_mean", 0.0)), float(data[f"{name}_std"])
        state = (data.get("transforms") or {}).get("normalizer", {}).get(name)
        if isinstance(state, Mapping):
            return float(state.get("mean", 0.0)), float(state.get("rmsd", state.get("stdev", 1.0)))
    return 0.0, 1.0


def _references(
    content: Mapping[str, Any], scale: float, species: Sequence[int], *, used: bool
) -> dict[int, float] | None:
    """Energies of elements (eV) that training subtracted: of the checkpoint, or of the model's own table."""
    saved = content.get("elementrefs")
    state = saved.get("energy") if isinstance(saved, Mapping) else None
    if isinstance(state, Mapping):
        table = state["element_references"].double()
    else:
        own = {name: t for name, t in canonical(content["state_dict"]).items() if name == _REFERENCES}
        if not own or not used:
            return None
        table = own[_REFERENCES].double() * scale
    return {z: float(table[z]) if z < len(table) else 0.0 for z in species}
