"""The default data set: small molecules at 300 K and 500 K, labelled with GFN2-xTB by ``generate.py``."""

from equitorch.datasets.shipped.read import load_shipped as load_shipped
from equitorch.datasets.shipped.read import shipped_names as shipped_names
