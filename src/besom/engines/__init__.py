"""What runs jobs: lanes, or any of Hydra's launchers, behind one seam."""
