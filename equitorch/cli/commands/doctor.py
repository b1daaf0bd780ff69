"""`equitorch doctor`: what this machine offers, and which fallbacks are in use."""

from __future__ import annotations

import os
from importlib.util import find_spec

from equitorch.cli import screen
from equitorch.cli.report.write import versions


def _kernels() -> list[tuple[str, str]]:
    import torch

    triton, numba = find_spec("triton") is not None, find_spec("numba") is not None
    if torch.cuda.is_available():
        gpu = (
            "Triton"
            if triton
            else "reference, PyTorch only (slow): pip install triton brings the fused kernels"
        )
    else:
        gpu = "no CUDA device" + ("; Triton is there for tests in its interpreter" if triton else "")
    cpu = (
        "Numba, compiled at first use and cached"
        if numba
        else "reference, PyTorch only (slow): pip install numba brings the fused loops"
    )
    return [("GPU", gpu), ("CPU", cpu)]


def _threads() -> str:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = f"{torch.get_num_threads()} of {cores} cores"
    if os.environ.get("OMP_NUM_THREADS"):
        told += f" (OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']})"
    if torch.get_num_threads() > cores:
        told += "; more threads than cores are slow: set OMP_NUM_THREADS"
    return told


def _self_test() -> str:
    """Compute one small thing whose answer is known."""
    import torch

    from equitorch.ops import spherical_harmonics

    rows = spherical_harmonics(1, torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64))
    expected = torch.tensor([[1.0, 0.0, 0.0, 3.0**0.5]], dtype=torch.float64)
    return (
        "ok" if torch.allclose(rows, expected, atol=1e-12) else f"WRONG: harmonics of z are {rows.tolist()}"
    )


def run() -> int:
    """Print the screen; exit code 1 when the self test fails."""
    import torch

    screen.banner()
    screen.listing("Versions", [f"{name} {text}" for name, text in versions().items()])
    screen.field("Threads", _threads())
    screen.field("Device", torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")
    for name, text in _kernels():
        screen.field(name, text)
    extras = {"tensorboard": "curves for TensorBoard", "h5py": "HDF5 data", "tblite": "xTB labels"}
    missing = [f"{name} ({use})" for name, use in extras.items() if find_spec(name) is None]
    screen.listing("Extras", [f"not installed: {', '.join(missing)}" if missing else "all installed"])
    try:
        verdict = _self_test()
    except Exception as error:
        verdict = f"FAILED: {type(error).__name__}: {error}"
    screen.field("Self test", verdict)
    return 0 if verdict == "ok" else 1
