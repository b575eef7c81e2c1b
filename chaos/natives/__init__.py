"""Each kind of change made ready on this machine, a room each; see `chaos.native`."""
