"""Who gets which part of a piece of memory. Plain Python: no GPU, no threads, no locks."""
