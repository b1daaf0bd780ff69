"""Data sets as atom graphs: one file per source."""
