"""Modules with weights, one file per family."""

from equitorch.layers.activation import Activation as Activation
from equitorch.layers.activation import NormActivation as NormActivation
from equitorch.layers.activation import ShiftedSoftplus as ShiftedSoftplus
from equitorch.layers.activation import normalize2mom as normalize2mom
from equitorch.layers.activation import ssp as ssp
from equitorch.layers.batch_norm import BatchNorm as BatchNorm
from equitorch.layers.cutoff import CosineCutoff as CosineCutoff
from equitorch.layers.cutoff import PolynomialCutoff as PolynomialCutoff
from equitorch.layers.dropout import Dropout as Dropout
from equitorch.layers.embedding import ElementEmbedding as ElementEmbedding
from equitorch.layers.extract import Extract as Extract
from equitorch.layers.extract import ExtractIr as ExtractIr
from equitorch.layers.gate import Gate as Gate
from equitorch.layers.mlp import MLP as MLP
from equitorch.layers.mlp import FullyConnectedNet as FullyConnectedNet
from equitorch.layers.norm import LayerNorm as LayerNorm
from equitorch.layers.norm import Norm as Norm
from equitorch.layers.norm import RMSNorm as RMSNorm
from equitorch.layers.radial_basis import BesselBasis as BesselBasis
from equitorch.layers.radial_basis import ExpNormBasis as ExpNormBasis
from equitorch.layers.radial_basis import GaussianBasis as GaussianBasis
from equitorch.layers.radial_basis import soft_one_hot_linspace as soft_one_hot_linspace
from equitorch.layers.radial_basis import soft_unit_step as soft_unit_step
