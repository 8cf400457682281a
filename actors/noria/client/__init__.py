"""Entry points: connect, start, resume, observe."""
