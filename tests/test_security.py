"""What no file of the package may do: run code from data, or code that a string spells."""

import ast
from pathlib import Path

import pytest

import equitorch

ALLOWED = {"commands/convert.py": 1}  # `equitorch convert --unsafe-pickle`, which says what it does
FILES = sorted(Path(equitorch.__file__).parent.rglob("*.py"))
FORBIDDEN = (
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
)


def offences(source):
    """Calls that could run somebody else's code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in FORBIDDEN or options.get("shell") == "True":
                yield f"line {node.lineno}: {name}"
            if name == "torch.load" and options.get("weights_only") != "True":
                yield f"line {node.lineno}: torch.load without weights_only=True"


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(p.parts[-2:]))
def test_runs_no_foreign_code(path):
    assert len(list(offences(path.read_text()))) == ALLOWED.get("/".join(path.parts[-2:]), 0)


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "pickle.load(f)",
        "run(x, shell=True)",
        "yaml.load(x)",
    ],
)
def test_the_check_can_fail(source):
    assert list(offences(source))
