"""The loop that asks, runs and writes down, and what it keeps. Never imports Keras."""
