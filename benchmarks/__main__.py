"""``python -m benchmarks [table ...]``: the tables named, or all that need nothing but this machine."""

import importlib
import importlib.util
import sys

TABLES = {  # module: the peer that must be installed
    "ops": "torch",
    "e3nn_basics": "e3nn",
    "convolution": "e3nn",
    "contraction": "torch",
    "so2": "e3nn",
    "models": "torchmdnet",
}

wanted, sys.argv = sys.argv[1:] or list(TABLES), sys.argv[:1]
if unknown := set(wanted) - set(TABLES):
    raise SystemExit(f"there is no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
for name in wanted:
    print(f"\n## {name}\n")
    if importlib.util.find_spec(TABLES[name]) is None:
        print(f"{TABLES[name]} is not installed")
    else:
        importlib.import_module(f"benchmarks.{name}").main()
