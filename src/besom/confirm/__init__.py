"""Is the winner real: leaders trained again with new seeds and compared, then the locked test set, once."""
