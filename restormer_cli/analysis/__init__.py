"""Estimates of what is wrong with a picture, from its pixels alone: noise, blur, blocks, clipping, rain; plain numpy."""
