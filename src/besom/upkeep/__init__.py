"""Checking a store and mending it: `besom doctor`, `besom repair`, `besom relocate`. Never TensorFlow."""
