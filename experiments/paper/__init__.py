"""AutoLossGen (arXiv 2204.13160): its search, its test, and its published figures."""
