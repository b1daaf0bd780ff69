"""equitorch/ops/numba_jit.py"""

import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from equitorch.ops import numba_jit

numba = pytest.importorskip("numba", reason="Numba is not installed")


def _sum_rows(x, out):
    for row in numba.prange(x.shape[0]):
        total = x.dtype.type(0)
        for column in range(x.shape[1]):
            total += x[row, column]
        out[row] = total


@pytest.fixture
def threads():
    """Set PyTorch's thread count; put it back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_runs_with_as_many_threads_as_pytorch(threads, count, dtype):
    threads(count)
    kernel = numba_jit.jit_pair(_sum_rows)
    x, out = torch.randn(50, 3, dtype=dtype), torch.empty(50, dtype=dtype)
    kernel(numba_jit.array(x), numba_jit.array(out))
    torch.testing.assert_close(out, x.sum(1))
    assert [parallel for parallel, _ in kernel._compiled] == [count > 1]


def test_small_work_stays_on_one_thread(threads):
    threads(2)
    kernel = numba_jit.jit_pair(_sum_rows)
    kernel(np.ones((2, 2)), np.ones(2), work=4)
    assert [parallel for parallel, _ in kernel._compiled] == [False]


def test_keeps_nan_and_infinity_visible():
    out = np.zeros(3)
    numba_jit.jit_pair(_sum_rows)(np.array([[math.nan, 1], [math.inf, 1], [1, 1]]), out)
    np.testing.assert_array_equal(out, [math.nan, math.inf, 2])


def test_variants_are_kept_on_disk_apart():
    """Numba's own key would load the serial code where the parallel one was asked for."""
    names = set()
    for parallel in (False, True):
        for kind in ("f2_f1", "d2_d1"):
            names.add(numba_jit._compile(_sum_rows, parallel, kind, cache=True)._cache._impl.filename_base)
    assert len(names) == 4


def test_several_python_threads_may_call_at_once(threads):
    """Numba's portable thread pool ends the process when they do."""
    threads(2)
    kernel, results = numba_jit.jit_pair(_sum_rows), [np.zeros(1000) for _ in range(4)]

    def work(out):
        torch.set_num_threads(2)
        for _ in range(20):
            kernel(np.ones((1000, 8)), out)

    workers = [threading.Thread(target=work, args=(out,)) for out in results]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all((out == 8).all() for out in results)


def test_no_folder_for_the_cache_is_no_obstacle(monkeypatch):
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    out = np.zeros(2)
    numba_jit.jit_pair(_sum_rows)(np.ones((2, 3)), out)
    assert out.tolist() == [3, 3]


def test_a_full_disk_is_no_obstacle(monkeypatch):
    def full(self, name, data):
        raise OSError("No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_data", full)
    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.load", lambda self, key: None)
    out = np.zeros(2, np.float32)
    numba_jit.jit_pair(_sum_rows)(np.ones((2, 3), np.float32).reshape(2, 3), out)
    assert out.tolist() == [3, 3]


def test_array_takes_any_view():
    x = torch.randn(4, 3, dtype=torch.complex64).conj().imag.mT.requires_grad_()
    taken = numba_jit.array(x)
    assert taken.flags.c_contiguous
    np.testing.assert_array_equal(taken, x.detach().clone().resolve_neg().numpy())


def test_importing_imports_no_numba():
    program = "import sys, equitorch.ops.numba_jit; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
