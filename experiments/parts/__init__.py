"""What commands have in common: reading data, searching, and judging what was found."""
