import importlib.util

import pytest

from equitorch.training.run import Observer
from equitorch.training.tensorboard import TensorBoard


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="the package is installed")
def test_says_what_to_install(tmp_path):
    with pytest.raises(ValueError, match=r"pip install 'equitorch-gdl\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_writes_every_column_as_a_curve():
    class Writer:
        def __init__(self):
            self.points = []

        def add_scalar(self, *point):
            self.points.append(point)

        def close(self):
            self.points.append("closed")

    board = TensorBoard.__new__(TensorBoard)
    board.writer = Writer()
    board.on_epoch(
        {"epoch": 3, "step": 9, "lr": 0.1, "valid_loss": 2.0, "train_energy_mae": float("nan"), "best": True}
    )
    board.on_end(None)
    assert isinstance(board, Observer)
    assert board.writer.points == [("lr", 0.1, 3), ("loss/valid", 2.0, 3), "closed"]
