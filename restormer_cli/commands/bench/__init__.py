"""`bench`: speed, memory and quality, compared."""
