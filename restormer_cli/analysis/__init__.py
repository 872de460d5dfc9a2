"""What is wrong with a picture, by its pixels alone: noise, blur, blocks, clipping, rain; and which task cures it."""
