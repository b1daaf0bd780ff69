"""Tests of atoms and neighbours."""
