"""Degradations as the world makes them: cameras in poor light, shaking hands, lenses out of focus, rain."""
