"""Checks that any equivariant function can be held against; public, for users' layers too."""

from equitorch.testing.comparison import Comparison as Comparison
from equitorch.testing.comparison import check_against as check_against
from equitorch.testing.equivariance import assert_equivariant as assert_equivariant
from equitorch.testing.equivariance import equivariance_error as equivariance_error
from equitorch.testing.equivariance import random_elements as random_elements
from equitorch.testing.equivariance import random_irreps as random_irreps
from equitorch.testing.equivariance import random_orthogonal as random_orthogonal
from equitorch.testing.equivariance import random_rotation as random_rotation
from equitorch.testing.equivariance import symplectic_form as symplectic_form
from equitorch.testing.equivariance import transform as transform
