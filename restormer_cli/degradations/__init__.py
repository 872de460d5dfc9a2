"""Noise, blur, rain and JPEG as pure functions, and the language that names them."""
