"""Drivers: one package each, named by the entry-point group `railbreak.drivers`."""
