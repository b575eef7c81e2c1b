"""What is measured: one file per probe."""
