"""equitorch/layers/identity.py"""

import pytest
import torch

from equitorch.layers import Identity
from equitorch.testing import assert_equivariant


def test_is_e3nns():
    nn = pytest.importorskip("e3nn.nn")
    arguments = ("0e+0e+0x1o+1o", "2x0e+1o")
    ours, theirs = Identity(*arguments), nn.Identity(*arguments)
    assert repr(ours.irreps_out) == repr(theirs.irreps_out)
    x = torch.randn(3, 5)
    assert torch.equal(ours(x[..., None])[..., 0], theirs(x))
    assert_equivariant(ours, ["2x0e+1o"], "2x0e+1o")


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"got 1x0e\+1x1o and 1x1o\+1x0e; a Linear leads"):
        Identity("0e+1o", "1o+0e")
    with pytest.raises(ValueError, match=r"expects x of shape \(\.\.\., 4, channels\), got \(2, 3, 1\)"):
        Identity("0e+1o", "0e+1o")(torch.ones(2, 3, 1))
