"""The network and its weights: the core that every verb shares."""
