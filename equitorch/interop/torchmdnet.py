"""torchmd-net checkpoints: TensorNet and TensorNet2 of any version, as potentials of this library."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from equitorch.models.potential import Potential
from equitorch.models.tensornet import TensorNet
from equitorch.models.tensornet2 import TensorNet2

_MODELS: Final = {
    "tensornet": TensorNet,
    "tensornet2": TensorNet2,
    "tensornetv2_alt": TensorNet2,  # names of TensorNet2 before its release
    "tensornet-nqe": TensorNet2,
}
# Its ssp subtracts log 2 rounded to float32, whatever the dtype of the model.
_ACTIVATIONS: Final = {
    "silu": "silu",
    "swish": "silu",
    "ssp": "ssp_float32",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}
# Its mean divides by atoms + 1: the scatter that computes it counts the zero it starts from.
_REDUCE: Final = {"add": "sum", "sum": "sum", "mean": "torchmdnet_mean"}
# Options without a counterpart here, and the values that switch them off.
_OFF: Final = {"atom_filter": (-1, None), "repulsion": (False, None), "output_model": ("Scalar",)}
_REQUIRED: Final = ("model", "embedding_dimension", "num_layers", "num_rbf", "cutoff_upper", "max_z")
_OPTIONAL: Final = (
    "activation",
    "cutoff_lower",
    "equivariance_invariance_group",
    "prior_model",
    "q_dim",
    "rbf_type",
    "reduce_op",
    "trainable_rbf",
)
_OPTIONS: Final = {*_REQUIRED, *_OPTIONAL, *_OFF}
_IGNORED: Final = re.compile(r"distance\.box|prior_model\.\d+\.initial_atomref")
_RENAMED: Final = (
    (re.compile(r"^model\."), ""),
    (re.compile(r"^representation_model\."), ""),
    (re.compile(r"(output_network|q_mlp)\.(\d+)\.(weight|bias)$"), r"\1.layers.\2.\3"),
    (re.compile(r"^prior_model\.(initial_atomref|atomref)"), r"prior_model.0.\1"),
)
_BASIS: Final = ("means", "betas", "offset", "coeff")


def load(
    state_dict: Mapping[str, Tensor],
    hyper_parameters: Mapping[str, Any],
    *,
    species: Sequence[int] | None = None,
    energy_unit: float = 1.0,
) -> Potential:
    """Rebuild a torchmd-net model: same weights, same energies and forces.

    Reads every layout: weights of versions before 3.0, recognised by ``check_errors`` among their
    hyper-parameters, are reordered. Lengths are in Å; the unit of energy is written nowhere in a checkpoint.

    Args:
        state_dict: its tensors, with or without the prefix ``model.``.
        hyper_parameters: its options, as in the file's ``hyper_parameters`` or the run's ``input.yaml``.
        species: atomic numbers that it was trained on; by default all that ``max_z`` allows.
        energy_unit: the checkpoint's unit of energy in eV, e.g. 0.0433641 for kcal/mol.

    Raises:
        ValueError: if the model, or one of its options, has no counterpart here; or tensors are missing,
            unknown, or of the wrong shape.

    Source:
        Pelaez et al. 2024, arXiv:2402.17660 (torchmd-net 2); checked against torchmd-net 3.1's PyTorch path.
    """
    hyper = dict(hyper_parameters)
    _check_options(hyper)
    left = canonical(state_dict)
    found = translate(left, hyper)
    references = _references(left, hyper)
    mean, std = (float(left.pop(name, default)) for name, default in (("mean", 0.0), ("std", 1.0)))
    unknown = sorted(name for name in left if not _IGNORED.fullmatch(name))
    if unknown:
        raise ValueError(
            f"the torchmd-net checkpoint holds tensors unknown to its hyper-parameters: {', '.join(unknown)}"
        )
    model = _build(hyper).to(found["embedding.element.weight"].dtype)
    _fill(model, found)
    known = [z for z in references or range(int(hyper["max_z"])) if 0 < z < 119]
    numbers = known if species is None else list(species)
    return Potential(
        model,
        species=numbers,
        reference_energies=references and {z: energy_unit * references[z] for z in numbers},
        scale=std * energy_unit,
        offset=mean * energy_unit,
        reduce=_REDUCE[hyper.get("reduce_op", "add")],
    ).eval()


def load_file(
    path: str | PathLike[str],
    hyper_parameters: Mapping[str, Any] | str | PathLike[str] | None = None,
    *,
    species: Sequence[int] | None = None,
    energy_unit: float = 1.0,
) -> Potential:
    """Read a Lightning checkpoint of torchmd-net without running any code from it.

    Objects of foreign classes inside become inert stand-ins: nothing of theirs is imported or called.

    Args:
        path: the ``.ckpt`` file.
        hyper_parameters: options, or the YAML file that holds them; by default those inside the file.
        species: as for :func:`load`.
        energy_unit: as for :func:`load`.

    Raises:
        ValueError: if the file holds no tensors or no hyper-parameters, or :func:`load` cannot use them.
    """
    content = _read(Path(path))
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise ValueError(
            f"{path} holds no 'state_dict'; load_file expects a Lightning checkpoint of torchmd-net"
        )
    if isinstance(hyper_parameters, str | PathLike):
        hyper_parameters = _read_yaml(Path(hyper_parameters))
    elif hyper_parameters is None:
        hyper_parameters = content.get("hyper_parameters")
    if not isinstance(hyper_parameters, Mapping):
        raise ValueError(
            f"{path} comes without hyper-parameters; pass the run's, hyper_parameters='input.yaml'"
        )
    lost = [k for k, v in hyper_parameters.items() if isinstance(v, _Inert) and k in _OPTIONS]
    if lost:
        raise ValueError(
            f"{path} holds {', '.join(lost)} as foreign objects; pass hyper_parameters='input.yaml'"
        )
    return load(content["state_dict"], hyper_parameters, species=species, energy_unit=energy_unit)


def canonical(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors by torchmd-net 3's names, without the prefixes of model and representation."""
    out = {}
    for name, value in state_dict.items():
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        out[name] = value.detach()
    return out


def translate(tensors: dict[str, Tensor], hyper_parameters: Mapping[str, Any]) -> dict[str, Tensor]:
    """Take a network's tensors out of ``tensors``; return them by this library's names and in its layout.

    Args:
        tensors: of a checkpoint, or gradients with respect to them, as :func:`canonical` names them.
        hyper_parameters: options of the checkpoint.

    Raises:
        ValueError: if a tensor is missing.
    """
    second = _MODELS[hyper_parameters["model"]] is TensorNet2
    count = int(hyper_parameters["num_layers"])
    if "check_errors" in hyper_parameters:  # before 3.0 the degrees came last
        layers = [] if second else [f"layers.{l}.linears_scalar.2" for l in range(count)]
        for name in ("tensor_embedding.linears_scalar.1", *layers):
            for end in ("weight", "bias"):
                value = _take(tensors, f"{name}.{end}")
                tensors[f"{name}.{end}"] = value.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
    found = {ours: _take(tensors, theirs) for ours, theirs in _names(count, second)}
    found |= {
        f"basis.{name}": tensors.pop(f"distance_expansion.{name}")
        for name in _BASIS
        if f"distance_expansion.{name}" in tensors
    }
    for end in ("weight", "bias"):
        parts = [_take(tensors, f"tensor_embedding.distance_proj{k}.{end}") for k in (1, 2, 3)]
        found[f"embedding.radial.network.layers.0.{end}"] = torch.cat(parts)
    blocks = [("embedding.mix", "tensor_embedding", 0)]
    for l in range(count):
        blocks += [
            (f"interactions.{l}.{ours}", f"layers.{l}", k) for ours, k in (("before", 0), ("after", 3))
        ]
    for ours, theirs, first in blocks:
        degrees = [_take(tensors, f"{theirs}.linears_tensor.{first + k}.weight") for k in range(3)]
        found[f"{ours}.weight"] = torch.stack(degrees)
    return found


def _names(count: int, second: bool) -> list[tuple[str, str]]:
    """Tensors that differ by their name only: ours, theirs."""
    modules = [
        ("embedding.pair", "tensor_embedding.emb2"),
        ("embedding.norm", "tensor_embedding.init_norm"),
        ("embedding.gate.layers.0", "tensor_embedding.linears_scalar.0"),
        ("embedding.gate.layers.1", "tensor_embedding.linears_scalar.1"),
        ("norms.norm", "out_norm"),
        ("norms.mix.layers.0", "linear"),
        ("energy.layers.0", "output_model.output_network.layers.0"),
        ("energy.layers.1", "output_model.output_network.layers.2"),
    ]
    network = "network" if second else "radial.network"
    for l in range(count):
        modules += [
            (f"interactions.{l}.{network}.layers.{k}", f"layers.{l}.linears_scalar.{k}") for k in range(3)
        ]
    for l in range(count + 1 if second else 0):
        theirs = f"charge_predicts.{l - 1}" if l else "charge_predict_0"
        modules.append((f"heads.{l}.norm", f"{theirs}.q_norm"))
        modules += [(f"heads.{l}.network.layers.{k}", f"{theirs}.q_mlp.layers.{2 * k}") for k in range(3)]
    names = [(f"{ours}.{end}", f"{theirs}.{end}") for ours, theirs in modules for end in ("weight", "bias")]
    return [("embedding.element.weight", "tensor_embedding.emb.weight"), *names]


def _take(tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(
            f"the torchmd-net checkpoint has no tensor {name!r}, which its hyper-parameters ask for"
        )
    return tensors.pop(name)


def _check_options(hyper: Mapping[str, Any]) -> None:
    for name in _REQUIRED:
        if name not in hyper:
            raise ValueError(
                f"torchmd-net's hyper-parameters lack {name!r}; pass those of the run's input.yaml"
            )
    if hyper["model"] not in _MODELS:
        raise ValueError(
            f"torchmd-net checkpoints can be read for model {', '.join(_MODELS)}, got {hyper['model']!r}"
        )
    for name, allowed in _OFF.items():
        value = hyper.get(name, allowed[0])
        if value not in allowed:
            raise ValueError(
                f"torchmd-net's {name}={value!r} has no counterpart here, only {allowed[0]!r} has"
            )
    for name, known, default in (("activation", _ACTIVATIONS, "silu"), ("reduce_op", _REDUCE, "add")):
        if hyper.get(name, default) not in known:
            raise ValueError(f"torchmd-net's {name} is one of {', '.join(known)}, got {hyper[name]!r}")


def _build(hyper: Mapping[str, Any]) -> nn.Module:
    options: dict[str, Any] = {
        "channels": int(hyper["embedding_dimension"]),
        "layers": int(hyper["num_layers"]),
        "radial": int(hyper["num_rbf"]),
        "cutoff": float(hyper["cutoff_upper"]),
        "lower": float(hyper.get("cutoff_lower", 0.0)),
        "basis": hyper.get("rbf_type", "expnorm"),
        "trainable_basis": bool(hyper.get("trainable_rbf", False)),
        "activation": _ACTIVATIONS[hyper.get("activation", "silu")],
        "group": hyper.get("equivariance_invariance_group", "O(3)"),
        "max_z": int(hyper["max_z"]),
    }
    kind = _MODELS[hyper["model"]]
    if kind is TensorNet2:
        if "q_dim" not in hyper:
            raise ValueError("torchmd-net's hyper-parameters of a tensornet2 lack 'q_dim'")
        options["charges"] = int(hyper["q_dim"])
    return kind(**options)


def _fill(model: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Copy the weights, and those buffers of the radial basis that upstream rounds to float32."""
    slots = {
        **dict(model.named_parameters()),
        **{k: v for k, v in model.named_buffers() if k.startswith("basis.")},
    }
    if slots.keys() != found.keys():
        odd = ", ".join(sorted(slots.keys() ^ found.keys()))
        raise ValueError(f"the torchmd-net checkpoint and its hyper-parameters disagree about {odd}")
    with torch.no_grad():
        for name, slot in slots.items():
            if slot.shape != found[name].shape:
                raise ValueError(
                    f"the torchmd-net checkpoint has {name} of shape {tuple(found[name].shape)}, "
                    f"its hyper-parameters ask for {tuple(slot.shape)}"
                )
            slot.copy_(found[name])


def _references(tensors: dict[str, Tensor], hyper: Mapping[str, Any]) -> dict[int, float] | None:
    """Energy of each element from the prior; None without one."""
    priors = hyper.get("prior_model") or []
    priors = [priors] if isinstance(priors, str | Mapping) else list(priors)
    named = [(p, {}) if isinstance(p, str) else next(iter(p.items())) for p in priors]
    if any(name not in ("Atomref", "LearnableAtomref") for name, _ in named) or len(named) > 1:
        raise ValueError(
            f"torchmd-net's prior_model={priors!r} has no counterpart here, only one Atomref has"
        )
    if not named:
        return None
    table = _take(tensors, "prior_model.0.atomref.weight").double().flatten()
    enabled = (named[0][1] or {}).get("enable", True)
    count = min(len(table), int(hyper["max_z"]))
    return {z: float(table[z]) if enabled else 0.0 for z in range(count)}


class _Inert:
    """Stands in for an object of a foreign class: takes any arguments and state, and keeps none."""

    def __new__(cls, *_args: object, **_options: object) -> Self:
        return object.__new__(cls)

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _read(path: Path) -> Any:
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        stand_ins: list[Any] = [
            (dict if name.endswith(".AttributeDict") else _Inert, name) for name in unknown
        ]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read without running code from it, so it is refused: {first}"
        ) from None


def _read_yaml(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text())
