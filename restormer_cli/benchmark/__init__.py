"""Methods timed and scored side by side; what `bench` measures with, and `ablate` scores with."""
