"""What every drop-in for a module of e3nn has: e3nn's call, layout, attributes and names in its state."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

Keep = Callable[[Any], Any]
"""How a tensor or function of e3nn's module is taken over: copied, or as it is."""

_CONSTANT = re.compile(r"(.+\.)?(output_mask|_compiled_\w+\..+)")


class DropIn(nn.Module):
    """Takes the place of a module of e3nn, on e3nn's flat features.

    Weights have e3nn's names and shapes. Entries of e3nn's state that hold no weight (masks, coupling
    coefficients, empty tensors) are ignored when a state is loaded, and remembered for
    :func:`equitorch.interop.e3nn.to_e3nn_state`. The ``output_mask`` is there, too: e3nn's models read it.

    Args:
        theirs: the module of e3nn.
        keep: how its tensors and functions are taken over.
        *arguments: of the next class in line, if there is one.
        **options: of the next class in line, if there is one.
    """

    attributes: ClassVar[tuple[str, ...]] = ()
    """What users read from e3nn's module and find here too, as e3nn's own objects."""

    def __init__(self, theirs: nn.Module, keep: Keep, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for name in self.attributes:
            setattr(self, name, getattr(theirs, name))
        self.constants: dict[str, Tensor] = {}

    def remember(self, theirs: nn.Module) -> None:
        """Note what else is in the state of e3nn's module, and take over its mask."""
        own = self.state_dict()
        state = theirs.state_dict()
        self.constants = {name: state[name].detach().clone() for name in state if name not in own}
        if "output_mask" in self.constants:
            self.register_buffer("output_mask", self.constants["output_mask"].clone(), persistent=False)

    def extra_repr(self) -> str:
        shown = [name for name in self.attributes if name != "instructions"]
        return ", ".join(f"{name}={getattr(self, name)}" for name in shown)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        unexpected: list[str] = []
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected, error_msgs
        )
        for name in unexpected:
            if state_dict[name].numel() and not _CONSTANT.fullmatch(name.removeprefix(prefix)):
                unexpected_keys.append(name)


class Weighted(DropIn):
    """A drop-in with one flat weight, its own or given at each call."""

    weight: nn.Parameter | None
    weight_numel: int
    shared_weights: bool
    instructions: list[Any]

    def __init__(self, theirs: nn.Module, keep: Keep) -> None:
        super().__init__(theirs, keep)
        self.weight = own_parameter(theirs, "weight", keep)

    def weight_or_own(self, weight: Tensor | None) -> Tensor:
        """The weight to use.

        Raises:
            ValueError: if none was given and the module has none of its own.
        """
        if weight is not None:
            return weight
        if self.weight is None:
            raise ValueError(
                f"{self} has no weights of its own and expects weight of shape "
                f"({'' if self.shared_weights else '..., '}{self.weight_numel},), got none"
            )
        return self.weight

    def weight_views(self, weight: Tensor | None = None, yield_instruction: bool = False) -> Iterator[Any]:
        """The weight of each instruction that has one, as a view of shape (..., *path_shape).

        Args:
            weight: the flat weight, if not the module's own. Shape (..., weight_numel).
            yield_instruction: give (number, instruction, view) in place of the view.
        """
        if not self.weight_numel:
            return
        flat, start = self.weight_or_own(weight), 0
        for number, instruction in enumerate(self.instructions):
            if not _has_weight(instruction):
                continue
            stop = start + math.prod(instruction.path_shape)
            view = flat[..., start:stop].reshape(*flat.shape[:-1], *instruction.path_shape)
            start = stop
            yield (number, instruction, view) if yield_instruction else view

    def weight_view_for_instruction(self, instruction: int, weight: Tensor | None = None) -> Tensor:
        """The weight of one instruction; see :meth:`weight_views`.

        Raises:
            ValueError: if that instruction has no weight.
        """
        for number, _, view in self.weight_views(weight, yield_instruction=True):
            if number == instruction:
                return view
        raise ValueError(f"instruction {instruction} of {self} has no weight")


def own_parameter(theirs: nn.Module, name: str, keep: Keep) -> nn.Parameter | None:
    """A parameter of e3nn's module; None where e3nn keeps an empty buffer under that name."""
    found = getattr(theirs, name, None)
    return keep(found) if isinstance(found, nn.Parameter) else None


def _has_weight(instruction: Any) -> bool:
    """Of a tensor product it says so; of a linear map all have, but those (i_in = -1) that add a bias."""
    return getattr(instruction, "has_weight", True) and getattr(instruction, "i_in", 0) != -1
