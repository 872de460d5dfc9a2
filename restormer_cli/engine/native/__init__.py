"""The network on a processor, by kernels in C: blocks, transitions, and weights as the kernels want them."""
