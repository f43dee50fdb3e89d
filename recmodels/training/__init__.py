"""How models are trained, many at a time."""
