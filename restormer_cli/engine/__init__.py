"""Inference: the network run exactly, strip by strip, within a memory budget."""
