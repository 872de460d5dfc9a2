"""Restore photographs with the Restormer transformer, from the command line."""

__version__ = "0.1.0"
