"""Processes, servers and networks that die under load."""
