"""Many losses at once: programs, and the kernels that run them."""
