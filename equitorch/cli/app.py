"""The commands and their options; what they do lives in ``commands``, imported when called."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from equitorch.cli import failure, screen

app = typer.Typer(
    name="equitorch",
    help="Equivariant potentials from plain files: train, evaluate, simulate, report.",
    epilog="Every command takes --debug, which shows tracebacks. Units: eV, Å, fs, e. "
    "Exit codes: 0 ok, 2 user error, 3 diverged, 130 interrupted (resumable).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
Run = Annotated[
    Path,
    typer.Argument(help="Folder of a training, or a model file (.eqt).", show_default=False, metavar="RUN"),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that win over the file, e.g. train.epochs=50.", metavar="KEY=VALUE"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the results only.")]


def _version(wanted: bool) -> None:
    if wanted:
        from equitorch import __version__

        screen.say(f"equitorch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything it writes.")] = Path(
        "runs/demo"
    ),
    minutes: Annotated[float, typer.Option(help="Longest training, in minutes.")] = 1.5,
) -> int:
    """Train on shipped molecules, run dynamics, write a report; about 3 minutes."""
    from equitorch.cli.commands.demo import run

    return run(output, minutes)


@app.command()
def new(
    config: Annotated[
        Path, typer.Argument(help="The YAML file to write.", show_default=False, metavar="CONFIG")
    ],
    data: Annotated[
        Path,
        typer.Option(
            "--data", "-d", help="Training structures with energies and forces.", show_default=False
        ),
    ],
    model: Annotated[str, typer.Option(help="Name of the model.")] = "tensornet",
    size: Annotated[str, typer.Option(help="small, medium or large.")] = "medium",
    full: Annotated[bool, typer.Option("--full", help="Write every setting with its default.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> int:
    """Write a commented config fitted to your data."""
    from equitorch.cli.commands.new import run

    return run(config, data, model, size, full, force)


@app.command()
def check(
    what: Annotated[
        Path,
        typer.Argument(
            help="A config (.yaml) or a file of structures.", show_default=False, metavar="CONFIG|DATA"
        ),
    ],
    overrides: Overrides = None,
) -> int:
    """Look at a config or at data without training; list every problem."""
    from equitorch.cli.commands.check import run

    return run(what, overrides or [])


@app.command()
def train(
    config: Annotated[
        Path,
        typer.Argument(
            help="A config (.yaml), training structures (.xyz, ...), or a run folder to --resume.",
            show_default=False,
            metavar="CONFIG|DATA",
        ),
    ],
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where the run stopped, bit for bit.")
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Train a potential; ends with errors, a health card and a report."""
    from equitorch.cli.commands.train import run

    return run(config, overrides or [], resume, quiet)


@app.command()
def evaluate(
    run: Run,
    data: Annotated[
        Path, typer.Argument(help="Structures with energies and forces.", show_default=False, metavar="DATA")
    ],
    by: Annotated[
        str | None, typer.Option(help="Also list errors by 'element' or by an info key, e.g. config_type.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the structures with predictions to this file.")
    ] = None,
) -> int:
    """Compare a model with labelled structures."""
    from equitorch.cli.commands.evaluate import run as command

    return command(run, data, by, write)


@app.command()
def md(
    run: Run,
    start: Annotated[
        Path, typer.Argument(help="Structure to start from.", show_default=False, metavar="START")
    ],
    ensemble: Annotated[str, typer.Option(help="nve, nvt (Langevin) or npt.")] = "nvt",
    temperature: Annotated[float, typer.Option(help="Kelvin.")] = 300.0,
    steps: Annotated[int, typer.Option(help="Number of steps.")] = 1000,
    dt: Annotated[float, typer.Option(help="Time step in fs.")] = 0.5,
    friction: Annotated[float, typer.Option(help="nvt: friction in 1/fs.")] = 0.01,
    pressure: Annotated[float, typer.Option(help="npt: pressure in GPa.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of velocities and noise.")] = 0,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64; as saved by default.")] = None,
    quiet: Quiet = False,
) -> int:
    """Run molecular dynamics; stops before it explodes."""
    from equitorch.cli.commands.md import run as command
    from equitorch.cli.dynamics import Settings

    return command(
        run, start, Settings(ensemble, temperature, steps, dt, friction, pressure, seed), dtype, quiet
    )


@app.command()
def relax(
    run: Run,
    start: Annotated[Path, typer.Argument(help="Structures to relax.", show_default=False, metavar="START")],
    cell: Annotated[bool, typer.Option("--cell", help="Relax the cell too.")] = False,
    fmax: Annotated[float, typer.Option(help="Largest force at the end, eV/Å.")] = 0.01,
    steps: Annotated[int, typer.Option(help="Most steps per structure.")] = 500,
) -> int:
    """Move atoms (and the cell) to the nearest minimum, in float64."""
    from equitorch.cli.commands.relax import run as command

    return command(run, start, cell, fmax, steps)


@app.command()
def report(run: Run) -> int:
    """Write the report again from the files of a run."""
    from equitorch.cli.commands.report import run as command

    return command(run)


@app.command()
def info(model: Run) -> int:
    """Show what a model file says about itself; runs no code from it."""
    from equitorch.cli.commands.info import run

    return run(model)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="A checkpoint of fairchem.", show_default=False, metavar="IN")
    ],
    output: Annotated[
        Path, typer.Argument(help="The model file to write (.eqt).", show_default=False, metavar="OUT")
    ],
    config: Annotated[
        Path | None, typer.Option(help="Its YAML config, where the checkpoint holds none.")
    ] = None,
    unsafe_pickle: Annotated[
        bool, typer.Option("--unsafe-pickle", help="Read it even if that runs code from it. Trust it first.")
    ] = False,
) -> int:
    """Turn a published checkpoint into a model file."""
    from equitorch.cli.commands.convert import run

    return run(source, output, config, unsafe_pickle)


@app.command()
def doctor() -> int:
    """Show versions, devices, kernels and the fallbacks in use."""
    from equitorch.cli.commands.doctor import run

    return run()


@app.command()
def bench(
    run: Run,
    start: Annotated[
        Path | None,
        typer.Argument(help="A structure; else one the run was evaluated on.", show_default=False),
    ] = None,
    sizes: Annotated[str, typer.Option(help="Copies evaluated at once.")] = "1,8,32",
) -> int:
    """Time energy and forces: ms per step, atoms per second, kernels against reference."""
    from equitorch.cli.commands.bench import run as command

    return command(run, start, sizes)


def _show(error: BaseException, debug: bool) -> int:
    code = failure.exit_code(error)
    log = failure.write_log(error) if code != failure.INTERRUPTED else None
    text = failure.describe(error, code)
    prefix = {failure.USER: "", failure.DIVERGED: "Diverged: ", failure.INTERNAL: "Error: "}.get(code, "")
    screen.say(prefix + text, style="red" if code != failure.INTERRUPTED else None, stderr=True)
    if log is not None and code == failure.INTERNAL:
        screen.say(f"Traceback in {log}", style="dim", stderr=True)
    elif code == failure.INTERNAL and not debug:
        screen.say("Add --debug to see the traceback, and please report it.", style="dim", stderr=True)
    if debug:
        screen.say("".join(traceback.format_exception(error)), stderr=True)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the entry point of ``equitorch``.

    Args:
        arguments: without the program's name; the command line's by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [a for a in given if a != "--debug"]
    failure.logs_to(None)
    try:
        result = app(args=given, prog_name="equitorch", standalone_mode=False)
        return int(result or 0)
    except SystemExit as stop:
        return int(stop.code or 0) if not isinstance(stop.code, str) else failure.USER
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failure.OK
    except BaseException as error:
        if hasattr(error, "format_message"):  # a wrong option or command: the parser words it
            getattr(error, "show", lambda: None)()
            return int(getattr(error, "exit_code", failure.USER))
        return _show(error, debug)
