"""Grids of units and what becomes of their rows: tables, statistics, notebooks, the report."""
