"""Programs built on pers, to be run, measured and read."""
