"""Defects of a picture, from its pixels alone: noise, blur, blocks, clipping, rain; and which task cures it."""
