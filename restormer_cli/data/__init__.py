"""Training data: pairs of pictures, cut into batches of patches."""
