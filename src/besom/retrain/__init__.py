"""Stored configurations trained again: what `besom reproduce` and `besom confirm` stand on."""
