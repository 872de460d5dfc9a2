"""`export`: weights in, a file for another tool out."""
