"""Models: plain tensors in, energies and tensor properties out."""

from equitorch.models.compiled import compile_with_gradient as compile_with_gradient
from equitorch.models.nequip import NequIP as NequIP
from equitorch.models.potential import Potential as Potential
from equitorch.models.tensornet import TensorNet as TensorNet
from equitorch.models.tensornet2 import TensorNet2 as TensorNet2
