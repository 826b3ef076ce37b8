"""How images come to be: read, checked, split, rescaled, shared between processes."""
