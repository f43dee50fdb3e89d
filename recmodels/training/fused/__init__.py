"""The fast trainer of factorisation models: one compiled call for each epoch of a candidate."""
