"""`equitorch train`: the run, then its errors, health card and report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from equitorch.cli import failure, screen
from equitorch.cli.commands import report
from equitorch.cli.data import SHIPPED, graphs_of, groups_of
from equitorch.cli.failure import UserError, existing
from equitorch.cli.predictions import GPA, Predictions, predict
from equitorch.cli.progress import TrainingScreen
from equitorch.cli.screen import duration, field, listing, number, plural

if TYPE_CHECKING:
    from equitorch.cli.health import Check
    from equitorch.datasets.dataset import AtomDataset
    from equitorch.models import Potential
    from equitorch.training import Config, Run

CONFIGS = (".yaml", ".yml")
_SHOWN = 500  # frames of the training set that the report looks at


def config_of(path: Path) -> Path:
    """Return the config that a training left in its folder, or the path itself."""
    inner = path / "config.yaml"
    return inner if inner.is_file() else path


def read_config(path: Path, overrides: Sequence[str]) -> Config:
    """Return the config that a YAML file, the folder of a run or a data file stands for.

    Raises:
        UserError: if the file does not exist.
        ConfigError: with every problem of the config.
    """
    from equitorch.training import Config

    if "=" in str(path) and not path.exists():
        raise UserError(f"expected a config or a data file before '{path}'")
    if not str(path).startswith(SHIPPED):
        existing(path, "config" if path.suffix in CONFIGS else "data file")
    source = config_of(path)
    if source.suffix not in CONFIGS:
        return Config.for_data(path, overrides)
    config = Config.from_file(source, overrides)
    if source != path and not any(text.startswith("output=") for text in overrides):
        config = config.model_copy(update={"output": str(path)})  # the folder may have been moved
    return config


def command_for(path: Path, overrides: Sequence[str]) -> str:
    """Return the command line that trains (again) with these arguments."""
    return " ".join(["equitorch", "train", *(shlex.quote(str(a)) for a in [path, *overrides])])


def error_table(predictions: dict[str, Predictions], sizes: Mapping[str, int] | None = None) -> None:
    """Print the final errors of every split; sizes say of how many frames a part was looked at."""
    names = {}
    for name, p in predictions.items():
        whole = (sizes or {}).get(name, p.frames)
        names[name] = f"{name} ({p.frames}{f' of {whole}' if whole > p.frames else ''})"
    width = max(15, *map(len, names.values())) + 1
    stress = any(p.stress_errors().count for p in predictions.values())
    screen.say()
    screen.say(
        f"{'':{width}}{'energy meV/atom':>18}{'forces meV/Å':>24}"
        + (f"{'stress GPa':>14}" if stress else ""),
        style="bold",
    )
    screen.say(
        f"{'':{width}}{'MAE':>9}{'RMSE':>9}{'MAE':>8}{'RMSE':>8}{'R²':>8}"
        + (f"{'MAE':>14}" if stress else ""),
        style="bold",
    )
    for name, p in predictions.items():
        e, f = p.energy_errors(), p.force_errors()
        r2 = f"{f.r2:.4f}" if f.count and f.r2 == f.r2 else "-"
        energy = f"{number(e.mae * 1e3):>9}{number(e.rmse * 1e3):>9}"
        forces = f"{number(f.mae * 1e3):>8}{number(f.rmse * 1e3):>8}{r2:>8}"
        line = f" {names[name]:{width - 1}}{energy}{forces}"
        screen.say(line + (f"{number(p.stress_errors().mae * GPA):>14}" if stress else ""))


def show_health(card: Sequence[Check]) -> None:
    """Print the health card."""
    marks = {True: " ✓", False: " ✗", None: ""}
    listing("Health", [check.short + marks[check.passed] for check in card])
    for check in card:
        if check.passed is False:
            screen.warn(f"{check.name}: {check.text}; expected at most {number(check.limit, 1)}")


def _evaluate(potential: Potential, splits: dict[str, AtomDataset], folder: Path) -> dict[str, Predictions]:
    """Predict every split (of a large training set, a part) and keep the arrays in the run folder."""
    found = {}
    for name, data in splits.items():
        if name == "train" and len(data) > _SHOWN:
            stride = len(data) / _SHOWN
            data = data.subset([int(i * stride) for i in range(_SHOWN)])
        if len(data):
            found[name] = predict(potential, graphs_of(data), groups_of(data))
            found[name].save(folder / "predictions" / f"{name}.npz")
    return found


def _health(potential: Potential, predictions: dict[str, Predictions], folder: Path) -> list[Check]:
    """Make the health card on a structure of the data: the smallest of those not trained on."""
    from equitorch.cli import health

    p = next(predictions[name] for name in ("test", "valid", "train") if name in predictions)
    sizes = p.ptr[1:] - p.ptr[:-1]
    frame = int(sizes.argmin()) if sizes.min() > 1 else int(sizes.argmax())
    card = health.check_health(potential, p.atoms(frame))
    health.save(card, folder)
    return card


def after_training(run: Run, config: Config) -> Path | None:
    """Evaluate the best model on all splits, check its health, print both, write the report."""
    from equitorch.training.splits import read_splits

    folder, potential = Path(run.path), run.model
    splits, _ = read_splits(config.data, seed=config.train.seed)
    predictions = _evaluate(potential, splits, folder)
    error_table(predictions, {name: len(data) for name, data in splits.items()})
    show_health(_health(potential, predictions, folder))
    return report.write(folder)


def train_with_screen(
    config: Config,
    *,
    resume: bool,
    quiet: bool,
    again: str,
    opening: Callable[[], None] | None = None,
) -> Run:
    """Train with the live screen; it is closed whatever happens."""
    from equitorch.training import train

    watcher = TrainingScreen(config.train.epochs, quiet=quiet, resume=f"{again} --resume", opening=opening)
    try:
        watcher.wait()
        return train(config, resume=resume, observers=[watcher])
    finally:
        watcher.close()


def _first_lines(config: Config) -> None:
    screen.banner()
    options = [f"{k} {v:g} Å" if k == "cutoff" else f"{k} {v}" for k, v in config.model.options.items()]
    listing("Model", [config.model.name, *options])
    t = config.train
    listing(
        "Train",
        [
            f"{plural(t.epochs, 'epoch')} at most",
            f"lr {number(t.lr, 2)} ({t.schedule.name})",
            t.precision,
            f"seed {t.seed}",
            f"into {config.output}",
        ],
    )


def _stopped(path: Path, again: str, what: str) -> int:
    """Say that an interruption did no harm, and how to go on."""
    resumable = (path / "state").is_dir()
    screen.say(f"Stopped {what}{', saved' if resumable else '; no epoch was finished'}.")
    field("Resume" if resumable else "Again", f"{again} --resume" if resumable else again)
    return failure.INTERRUPTED


def run(path: Path, overrides: Sequence[str], resume: bool, quiet: bool) -> int:
    """Train and tell."""
    config = read_config(path, overrides)
    failure.logs_to(Path(config.output))
    again, folder = command_for(path, overrides), Path(config.output)
    try:
        result = train_with_screen(
            config, resume=resume, quiet=quiet, again=again, opening=lambda: _first_lines(config)
        )
    except KeyboardInterrupt:
        return _stopped(folder, again, "at once: the last epochs that were saved count")
    if result.interrupted:
        return _stopped(folder, again, f"after epoch {len(result.history)}")
    try:
        return _finish(result, config, quiet=quiet)
    except KeyboardInterrupt:
        return _stopped(folder, again, "after the training, before its errors and report were complete")


def _finish(result: Run, config: Config, *, quiet: bool) -> int:
    """Say how the training ended, what came out of it and where it is."""
    reasons = {"early": "no more progress", "time": "the time is up"}
    if not quiet and result.status in reasons:
        listing("Ended", [reasons[result.status], f"epoch {len(result.history)} of {config.train.epochs}"])
    written = after_training(result, config)
    seconds = float(result.summary.get("seconds", 0))
    listing(
        "Best",
        [
            f"epoch {result.summary.get('best_epoch', '?')} of {len(result.history)}",
            f"trained in {duration(seconds)}",
        ],
    )
    names = ["model.eqt", *(["report.html"] if written else []), "metrics.csv", "config.yaml", "train.log"]
    field("Wrote", f"{config.output}/{{{', '.join(names)}}}")
    field("Next", f"equitorch md {shlex.quote(config.output)} START")
    return failure.OK
