"""Recommender models, one a file; each registers itself in `recmodels.models.base.MODELS`."""
