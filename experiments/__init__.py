"""Programs that put the packages together."""
