"""From a loss to its evaluation."""
