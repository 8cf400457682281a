"""The definition of workflows: frozen values, no I/O."""
