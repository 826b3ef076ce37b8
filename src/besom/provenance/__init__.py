"""Where a result comes from: the code, the packages and the machine that a trial ran with."""
