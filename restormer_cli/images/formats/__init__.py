"""One format, one file: its header, decoding and encoding."""
