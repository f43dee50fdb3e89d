"""One run of a searcher: what it is told, what it may spend, what is kept of it."""
