"""Programs that probes run; each speaks JSON lines (see `chaos.registry.Program`)."""
