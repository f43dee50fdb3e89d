"""Files that survive whatever happens to their process."""
