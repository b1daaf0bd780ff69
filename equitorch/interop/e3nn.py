"""e3nn: its modules as drop-ins of this library, its irreps, layouts and harmonics.

e3nn is imported in :func:`to_e3nn_irreps` only; modules are recognised by the names of their classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from equitorch.interop import e3nn_pointwise as pointwise
from equitorch.interop import e3nn_sphere as sphere
from equitorch.interop import e3nn_weighted as weighted
from equitorch.interop.e3nn_dropin import DropIn, Keep
from equitorch.layers.spherical_harmonics import SphericalHarmonics
from equitorch.reps import Irreps
from equitorch.reps.convention import from_e3nn as features_from_e3nn
from equitorch.reps.convention import to_e3nn as features_to_e3nn
from equitorch.reps.irreps import IrrepsLike

if TYPE_CHECKING:
    from e3nn import o3

__all__ = [
    "features_from_e3nn",
    "features_to_e3nn",
    "from_e3nn",
    "spherical_harmonics",
    "to_e3nn_irreps",
    "to_e3nn_state",
]


def _harmonics(theirs: Any, keep: Keep) -> nn.Module:
    ours = SphericalHarmonics(theirs._ls_list, theirs.normalize, theirs.normalization, theirs.irreps_in)
    ours.irreps_in, ours.irreps_out = theirs.irreps_in, theirs.irreps_out
    return ours


_COUNTERPARTS: Final[dict[str, Callable[[Any, Keep], nn.Module]]] = {
    "Linear": weighted.Linear,
    "TensorProduct": weighted.TensorProduct,
    "FullyConnectedTensorProduct": weighted.TensorProduct,
    "FullTensorProduct": weighted.TensorProduct,
    "ElementwiseTensorProduct": weighted.TensorProduct,
    "TensorSquare": weighted.TensorSquare,
    "ReducedTensorProducts": weighted.ReducedTensorProducts,
    "normalize2mom": pointwise.Scaled,
    "Activation": pointwise.Activation,
    "Extract": pointwise.Extract,
    "ExtractIr": pointwise.Extract,
    "Gate": pointwise.Gate,
    "NormActivation": pointwise.NormActivation,
    "BatchNorm": pointwise.BatchNorm,
    "Dropout": pointwise.Dropout,
    "FullyConnectedNet": pointwise.FullyConnectedNet,
    "_Layer": pointwise.DenseLayer,
    "Identity": pointwise.Identity,
    "Norm": pointwise.Norm,
    "SphericalHarmonics": _harmonics,
    "ToS2Grid": sphere.ToS2Grid,
    "FromS2Grid": sphere.FromS2Grid,
    "S2Activation": sphere.S2Activation,
    "SO3Grid": sphere.SO3Grid,
    "SO3Activation": sphere.SO3Activation,
}


def from_e3nn(module: nn.Module) -> nn.Module:
    """A copy of a module in which everything of e3nn runs by this library.

    The drop-ins are called as e3nn's modules are, on e3nn's flat features, with the same numbers. They hold
    copies of the weights under e3nn's names and keep dtype, device, ``training`` and ``requires_grad``;
    states of e3nn can be loaded into them. What is not of e3nn, classes derived from e3nn's included, is
    copied as it is, with its children replaced. The module given is left alone.

    Args:
        module: one of e3nn's, or any model that contains some.

    Raises:
        ValueError: for a module of e3nn without counterpart here, none of whose children has one; for a
            scripted one; and for what is no module.

    Source:
        Geiger, Smidt 2022, arXiv:2207.09453; checked against e3nn 0.6.

    >>> import torch
    >>> from e3nn import o3
    >>> theirs = o3.Linear("16x0e + 8x1o", "8x0e + 4x1o")
    >>> ours, x = from_e3nn(theirs), torch.randn(10, 40)
    >>> torch.allclose(ours(x), theirs(x), atol=1e-5)
    True
    """
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"from_e3nn expects a module, got {module!r} of type {type(module).__name__}; "
            "build the module of e3nn first"
        )
    memo: dict[int, Any] = {}
    known = _replaceable(module)
    for theirs in known:
        memo[id(theirs)] = _converted(theirs, lambda value: copy.deepcopy(value, memo))
    ours = copy.deepcopy(module, memo)
    hidden: dict[int, nn.Module] = {}  # from the memo, by e3nn's own way of copying
    for parent in list(ours.modules()):
        for name, child in parent._modules.items():
            if child is not None and _counterpart(child) is not None:
                if id(child) not in hidden:
                    hidden[id(child)] = _converted(child, lambda value: value)
                parent._modules[name] = hidden[id(child)]
    return ours


def to_e3nn_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a converted module as the original's: ``original.load_state_dict(...)`` accepts it.

    Args:
        module: what :func:`from_e3nn` returned.

    >>> from e3nn import o3
    >>> theirs = o3.Linear("16x0e + 8x1o", "8x0e + 4x1o")
    >>> theirs.load_state_dict(to_e3nn_state(from_e3nn(theirs)))
    <All keys matched successfully>
    """
    state = dict(module.state_dict())
    for path, part in module.named_modules(remove_duplicate=False):
        if isinstance(part, DropIn):
            state |= {f"{path}.{name}".lstrip("."): value for name, value in part.constants.items()}
    return state


def to_e3nn_irreps(irreps: IrrepsLike) -> o3.Irreps:
    """Our irreps as e3nn's; ``Irreps`` reads e3nn's as they are.

    Raises:
        ValueError: for irreps without parity, which e3nn does not have.

    >>> to_e3nn_irreps("16x0e + 4x1o")
    16x0e+4x1o
    """
    from e3nn import o3

    ours = Irreps(irreps)
    if ours.group != "O(3)":
        raise ValueError(f"e3nn has irreps of O(3) only, got '{ours}'; give every irrep a parity")
    return o3.Irreps([(mul, (ir.l, ir.p)) for mul, ir in ours])


def spherical_harmonics(
    l: int | IrrepsLike | Sequence[int], x: Tensor, normalize: bool, normalization: str = "integral"
) -> Tensor:
    """``e3nn.o3.spherical_harmonics``: the same call, for any degree.

    Args:
        l: degrees: one, several in any order, or irreps, whose parities must be possible.
        x: vectors. Shape (..., 3).
        normalize: take the harmonics of the directions.
        normalization: "integral", "component" or "norm".

    Shape:
        -> (..., sum of 2 l + 1)

    Raises:
        ValueError: if a parity is impossible; see :class:`equitorch.layers.SphericalHarmonics`.

    >>> import torch
    >>> spherical_harmonics(1, torch.tensor([0.0, 3.0, 4.0]), True, "norm")
    tensor([0.0000, 0.6000, 0.8000])
    """
    return SphericalHarmonics(l, normalize, normalization)(x)


def _counterpart(module: nn.Module) -> Callable[[Any, Keep], nn.Module] | None:
    known = _is_of_e3nn(module) and not _kind(module).__module__.startswith("e3nn.o3.experimental")
    return _COUNTERPARTS.get(type(module).__name__) if known else None


def _is_of_e3nn(module: nn.Module) -> bool:
    return _kind(module).__module__.split(".")[0] == "e3nn"


def _kind(module: nn.Module) -> type:
    """The class of a module, and not the one that torch.fx derives from it for every program."""
    return next(c for c in type(module).__mro__ if "GraphModuleImpl" not in c.__qualname__)


def _replaceable(module: nn.Module, path: str = "", *, inside: bool = False) -> list[nn.Module]:
    """The outermost modules that have a counterpart."""
    if _counterpart(module) is not None:
        return [module]
    if not inside:
        _refuse_scripted(module, path)
    own, found = _is_of_e3nn(module), []
    for name, child in module.named_children():
        found += _replaceable(child, f"{path}.{name}".lstrip("."), inside=own or inside)
    if own and not (found or inside):
        kind = _kind(module)
        raise ValueError(
            f"from_e3nn knows no counterpart of {kind.__module__}.{kind.__qualname__} "
            f"({'at ' + path if path else 'the module itself'}); convert the parts of the model around it, "
            "or write it with modules of e3nn.o3 and e3nn.nn"
        )
    return found


def _refuse_scripted(module: nn.Module, path: str) -> None:
    """Say that in a scripted module nothing can be replaced, if it holds anything of e3nn."""
    if not isinstance(module, torch.jit.ScriptModule):
        return
    parts: list[Any] = list(module.modules())
    names = [str(part._c._type().qualified_name()) for part in parts]
    held = next((name for name in names if ".e3nn." in name), None)
    if held is not None:
        where = f"at {path}" if path else "the module itself"
        raise ValueError(
            f"from_e3nn cannot look into a scripted module ({where}), "
            f"which holds {held.removeprefix('__torch__.')}; convert before scripting"
        )


def _converted(theirs: nn.Module, keep: Keep) -> nn.Module:
    convert = _counterpart(theirs)
    assert convert is not None, "only modules with a counterpart are converted"
    ours = convert(theirs, keep)
    for part in ours.modules():
        part.training = theirs.training
    if isinstance(ours, DropIn):
        ours.remember(theirs)
    return ours
