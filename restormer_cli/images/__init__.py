"""Picture and video files to arrays and back, everything kept."""
