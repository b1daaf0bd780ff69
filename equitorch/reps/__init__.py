"""What a feature is: how its components change when space is rotated or mirrored."""

from equitorch.reps.angular_momentum import change_basis_real_to_complex as change_basis_real_to_complex
from equitorch.reps.angular_momentum import so3_generators as so3_generators
from equitorch.reps.angular_momentum import su2_generators as su2_generators
from equitorch.reps.angular_momentum import wigner_3j as wigner_3j
from equitorch.reps.coupling import Coupling as Coupling
from equitorch.reps.irreps import Irrep as Irrep
from equitorch.reps.irreps import Irreps as Irreps
from equitorch.reps.irreps import MulIr as MulIr
from equitorch.reps.rep import ChangedBasis as ChangedBasis
from equitorch.reps.rep import DirectSum as DirectSum
from equitorch.reps.rep import Dual as Dual
from equitorch.reps.rep import KroneckerProduct as KroneckerProduct
from equitorch.reps.rep import Rep as Rep
from equitorch.reps.rep import intertwiners as intertwiners
from equitorch.reps.rep import invariants as invariants
from equitorch.reps.wigner import wigner_D as wigner_D
from equitorch.reps.wigner import wigner_D_all as wigner_D_all
from equitorch.reps.wigner import wigner_D_from_angles as wigner_D_from_angles
from equitorch.reps.wigner import wigner_steps as wigner_steps
