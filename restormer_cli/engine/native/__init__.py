"""The block's two passes in C, compiled once for the processor at hand: where that cannot be, strips.py does without."""
