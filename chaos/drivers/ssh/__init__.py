"""The driver `ssh`: machines that are there already, reached over SSH."""
