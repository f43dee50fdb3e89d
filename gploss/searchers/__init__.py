"""The searchers, one file each; every module here registers its searcher in `gploss.search.searcher.SEARCHERS`."""
