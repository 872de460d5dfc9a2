"""Measures of image quality, and each task's published protocol."""
