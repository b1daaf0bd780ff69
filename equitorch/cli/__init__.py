"""The command line: `equitorch train | evaluate | md | relax | report | ...`, from plain files."""

from equitorch.cli.app import main as main
