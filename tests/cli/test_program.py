"""The installed program, in processes of its own: light start, odd surroundings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CALL = [sys.executable, "-c", "import sys; from equitorch.cli import main; sys.exit(main())"]


def test_help_needs_neither_torch_models_nor_ase() -> None:
    code = (
        "import sys\nfrom equitorch.cli import main\nassert main(['--help']) == 0\n"
        "heavy = {'ase', 'numba', 'scipy', 'equitorch.models.tensornet', 'equitorch.training', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_runs_in_locale_c_without_a_home_that_can_be_written(tmp_path: Path, run_folder: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")}
    odd = {
        "HOME": str(home),
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
        "PYTHONHASHSEED": "7",
        "COLUMNS": "40",
    }
    done = subprocess.run([*CALL, "info", str(run_folder)], capture_output=True, env=keep | odd, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"cutoff 3 A" in done.stdout
    assert not any(home.iterdir())
