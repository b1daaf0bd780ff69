"""One self-contained HTML file per run: curves, parity plots, error tables, dynamics, provenance."""

from equitorch.cli.report.write import write_report as write_report
