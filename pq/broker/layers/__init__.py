"""Layers around a broker: they change records on their way to the store and back."""
