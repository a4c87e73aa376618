"""A server: a supervisor and its worker processes."""
