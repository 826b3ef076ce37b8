"""A stored trial once more, and how equal it came out."""
