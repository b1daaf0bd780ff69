"""Equivariant linear maps between tensor powers, by diagrams."""

from equitorch.ops.diagrams.linear import diagram_linear as diagram_linear
from equitorch.ops.diagrams.linear import diagram_mix as diagram_mix
from equitorch.ops.diagrams.op import diagram_analysis as diagram_analysis
from equitorch.ops.diagrams.op import diagram_symbol as diagram_symbol
from equitorch.ops.diagrams.op import diagram_synthesis as diagram_synthesis
from equitorch.ops.diagrams.orbits import orbit_map as orbit_map
from equitorch.ops.diagrams.prepared import prepared_linear as prepared_linear
from equitorch.ops.diagrams.program import LinearPlan as LinearPlan
from equitorch.ops.diagrams.program import Pair as Pair
from equitorch.ops.diagrams.program import linear_plan as linear_plan
