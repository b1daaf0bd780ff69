"""Modules with weights, one file per family."""
