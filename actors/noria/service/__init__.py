"""What a worker serves by request and reply: the control API, and its step handlers."""
