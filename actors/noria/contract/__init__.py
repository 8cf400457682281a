"""Everything that crosses the wire, and every name."""
