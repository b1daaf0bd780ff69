"""Tensors of published models and what they are here: one line for each, read in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from equitorch.layers.linear import Linear


class Key(NamedTuple):
    """A tensor of a published model, and the parameters here that hold the same numbers.

    Attributes:
        theirs: its name there.
        ours: names here; more than one if it is split.
        form: how they lie, a name of :data:`FORMS`.
    """

    theirs: str
    ours: tuple[str, ...]
    form: str = "same"


def modules(pairs: Iterable[tuple[str, str]], ends: Sequence[str] = ("weight", "bias")) -> list[Key]:
    """The tensors of modules that differ by name only; pairs are (theirs, ours).

    >>> modules([("fc", "linear")])[1]
    Key(theirs='fc.bias', ours=('linear.bias',), form='same')
    """
    return [Key(f"{theirs}.{end}", (f"{ours}.{end}",)) for theirs, ours in pairs for end in ends]


def radial(theirs: str, ours: str) -> list[Key]:
    """A radial network: Linear, LayerNorm, SiLU, twice, and Linear."""
    return modules([(f"{theirs}.net.{k}", f"{ours}.{k}") for k in (0, 1, 3, 4, 6)])


def degree_linear(theirs: str, ours: str) -> list[Key]:
    """A linear map of each degree: theirs (degrees, out, in), ours one flat vector that is scaled in use."""
    return [Key(f"{theirs}.weight", (f"{ours}.weight",), "degrees"), Key(f"{theirs}.bias", (f"{ours}.bias",))]


def convolution(theirs: str, ours: str, mmax: int) -> list[Key]:
    """An SO(2) convolution: a map of m = 0, and for each m > 0 the real above the imaginary matrix."""
    orders = [
        Key(f"{theirs}.so2_m_conv.{k}.fc.weight", (f"{ours}.real.{k}", f"{ours}.imag.{k}"), "halves")
        for k in range(mmax)
    ]
    return modules([(f"{theirs}.fc_m0", f"{ours}.m0")]) + orders


def fill(model: nn.Module, keys: Iterable[Key], tensors: Mapping[str, Tensor]) -> None:
    """Copy a checkpoint's tensors into a model's parameters; every one of both must be used.

    Args:
        model: has the parameters that the keys name.
        keys: of a model of this kind.
        tensors: of the checkpoint, by their canonical names.

    Raises:
        ValueError: listing what is missing, unknown, or of another shape.
    """
    keys, slots = list(keys), dict(model.named_parameters())
    wanted, ours = {key.theirs for key in keys}, {name for key in keys for name in key.ours}
    assert ours == slots.keys(), f"a key map forgets or invents {sorted(ours ^ slots.keys())}"
    _refuse("has no tensor", sorted(wanted - tensors.keys()), "which its config asks for")
    _refuse("holds tensors", sorted(tensors.keys() - wanted), "for which this model has no place")
    wrong = []
    with torch.no_grad():
        for key in keys:
            parameters, value = [slots[name] for name in key.ours], tensors[key.theirs]
            if value.numel() != sum(p.numel() for p in parameters):
                shapes = " + ".join(str(tuple(p.shape)) for p in parameters)
                wrong.append(f"{key.theirs} {tuple(value.shape)}, here {shapes}")
                continue
            split = FORMS[key.form][0]
            for parameter, part in zip(parameters, split(value, parameters), strict=True):
                parameter.copy_(part)
    _refuse("and its config disagree about shapes:", wrong, "")


def gather(model: nn.Module, keys: Iterable[Key], *, gradients: bool = False) -> dict[str, Tensor]:
    """A model's parameters, or their gradients, as the published model names and shapes them.

    Args:
        model: has the parameters that the keys name.
        keys: of a model of this kind.
        gradients: by the published tensors, instead of their values; zero where there is none.
    """
    slots, found = dict(model.named_parameters()), {}
    for key in keys:
        values = [slots[name].detach() for name in key.ours]
        if gradients:
            given = [slots[name].grad for name in key.ours]
            values = [torch.zeros_like(v) if g is None else g for v, g in zip(values, given, strict=True)]
        module = model.get_submodule(key.ours[0].rpartition(".")[0])
        found[key.theirs] = FORMS[key.form][1](values, module, gradients)
    return found


def _refuse(verb: str, names: Sequence[str], why: str) -> None:
    if names:
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        raise ValueError(f"the fairchem checkpoint {verb} {shown}" + (f", {why}" if why else ""))


def _split_same(value: Tensor, ours: Sequence[Tensor]) -> list[Tensor]:
    return [value.reshape(ours[0].shape)]


def _split_halves(value: Tensor, _ours: Sequence[Tensor]) -> list[Tensor]:
    return list(value.chunk(2))


def _split_degrees(value: Tensor, _ours: Sequence[Tensor]) -> list[Tensor]:
    return [value.mT.flatten() * value.shape[-1] ** 0.5]


def _join_same(ours: Sequence[Tensor], _module: nn.Module, _gradients: bool) -> Tensor:
    return ours[0]


def _join_row(ours: Sequence[Tensor], _module: nn.Module, _gradients: bool) -> Tensor:
    return ours[0].flatten()


def _join_halves(ours: Sequence[Tensor], _module: nn.Module, _gradients: bool) -> Tensor:
    return torch.cat(list(ours))


def _join_degrees(ours: Sequence[Tensor], module: nn.Module, gradients: bool) -> Tensor:
    assert isinstance(module, Linear), "only such a map has degrees"
    scale = module.channels_in**0.5 if gradients else module.channels_in**-0.5
    return ours[0].reshape(-1, module.channels_in, module.channels_out).mT * scale


_Split = Callable[[Tensor, Sequence[Tensor]], list[Tensor]]
_Join = Callable[[Sequence[Tensor], nn.Module, bool], Tensor]
FORMS: Final[dict[str, tuple[_Split, _Join]]] = {
    "same": (_split_same, _join_same),
    "row": (_split_same, _join_row),
    "halves": (_split_halves, _join_halves),
    "degrees": (_split_degrees, _join_degrees),
}
"""How to lay a published tensor into parameters here, and back."""
