"""Sources of compiled loops; see `recmodels.metrics.loops`."""
