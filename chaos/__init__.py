"""railbreak: breaks an AI training fabric on purpose and measures what the job feels."""
