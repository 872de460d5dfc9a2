"""The network as a graph, and as files of other runtimes."""
