"""Pictures, degradations and data sets."""
