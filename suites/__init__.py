"""Promises to a training team, as pytest files."""
