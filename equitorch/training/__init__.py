"""Training in plain PyTorch: one config, one loop, resumable bit for bit."""

from equitorch.training.config import Config as Config
from equitorch.training.config_reader import ConfigError as ConfigError
from equitorch.training.evaluate import Evaluation as Evaluation
from equitorch.training.evaluate import evaluate as evaluate
from equitorch.training.loop import train as train
from equitorch.training.run import DivergedError as DivergedError
from equitorch.training.run import Observer as Observer
from equitorch.training.run import Run as Run
