"""``python -m benchmarks [table ...]``: the tables named, or all that need nothing but this machine."""

import argparse
import importlib
import importlib.util
import sys

TABLES = {  # module: the peer that must be installed
    "ops": "torch",
    "e3nn_basics": "e3nn",
    "convolution": "e3nn",
    "contraction": "torch",
    "gaunt": "e3nn",
    "diagrams": "torch",
    "so2": "e3nn",
    "equiformer_v2": "torch",
    "models": "torchmdnet",
}

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
parser.add_argument("table", nargs="*", choices=[*TABLES, []], help=f"of {', '.join(TABLES)}; default all")
wanted = parser.parse_args().table or list(TABLES)
sys.argv = sys.argv[:1]
for name in wanted:
    print(f"\n## {name}\n")
    if importlib.util.find_spec(TABLES[name]) is None:
        print(f"{TABLES[name]} is not installed")
    else:
        importlib.import_module(f"benchmarks.{name}").main()
