"""The equivariant convolution: gather, couple with a filter, weigh, sum at the receiver."""

from equitorch.ops.convolution.form import form_lists as form_lists
from equitorch.ops.convolution.form import form_name as form_name
from equitorch.ops.convolution.op import convolution as convolution
