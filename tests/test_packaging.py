"""The links at the root are for readers; the package that users install does not know them."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["layers", "datasets"])
def test_link_leads_into_the_package(name):
    assert (ROOT / name).is_symlink()
    assert (ROOT / name).resolve() == ROOT.resolve() / "equitorch" / name


def test_wheel_holds_the_package_its_data_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="the wheel is built without a download")
    pytest.importorskip("wheel", reason="the wheel is built without a download")
    junk = shutil.ignore_patterns("build", "*.egg-info", ".*", "__pycache__", "runs")
    shutil.copytree(ROOT, tmp_path / "src", symlinks=True, ignore=junk)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", tmp_path, tmp_path / "src"], check=True)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"equitorch"}
    assert {"equitorch/py.typed", "equitorch/datasets/shipped/aspirin.npz"} <= set(names)
