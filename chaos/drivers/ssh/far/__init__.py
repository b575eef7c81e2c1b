"""Programs that are shipped to machines and run there; Python 3.10, standard library alone."""
