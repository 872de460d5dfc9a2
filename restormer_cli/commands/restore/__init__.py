"""`restore`: pictures in, the same names out."""
