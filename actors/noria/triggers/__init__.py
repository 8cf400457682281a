"""CloudEvents and schedules that start runs."""
