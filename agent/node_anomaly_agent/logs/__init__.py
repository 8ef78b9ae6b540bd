"""Logs: each source yields batches of complete lines; what they say is counted, never kept."""
