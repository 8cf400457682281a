"""The loop that does I/O: load, decide, perform, append, until the actor rests."""
