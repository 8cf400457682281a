"""The pure heart: what a log means and what to do next. No I/O, no clock, no NATS."""
