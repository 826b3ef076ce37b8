"""Which configuration next: spaces, samplers, pruners. Never imports Keras."""
