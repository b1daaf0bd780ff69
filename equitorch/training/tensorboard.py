"""Curves for TensorBoard, an extra package: ``pip install equitorch-gdl[tensorboard]``."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equitorch.training.run import Observer, Run


class TensorBoard(Observer):
    """Writes every column of metrics.csv as a curve.

    Args:
        folder: for the event files.

    Raises:
        ValueError: when the package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            message = "train.tensorboard needs one more package; pip install 'equitorch-gdl[tensorboard]'"
            raise ValueError(message) from None
        self.writer: Any = SummaryWriter(str(folder))

    def on_epoch(self, metrics: Mapping[str, Any]) -> None:
        """Add a point to every curve."""
        for name, value in metrics.items():
            if name not in ("epoch", "step", "best") and math.isfinite(value):
                split, _, quantity = name.partition("_")
                tag = f"{quantity}/{split}" if quantity else name
                self.writer.add_scalar(tag, value, metrics["epoch"])

    def on_end(self, run: Run) -> None:
        """Write what is left."""
        self.writer.close()
