"""Machinery that more than one verb uses."""
