"""Asking for work: from an event loop, from a plain shell, from many threads."""
