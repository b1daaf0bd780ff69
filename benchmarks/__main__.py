"""``python -m benchmarks``: the tables of ops and of models."""

import importlib.util

from benchmarks import models, ops

print("## Ops\n")
ops.main()
print("\n## Models\n")
if importlib.util.find_spec("torchmdnet") is None:
    print("torchmd-net is not installed: pip install torchmd-net")
else:
    models.main()
