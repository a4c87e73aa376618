"""Pure data and rules: what a job is, what a task is, what may happen to it.

Nothing here does I/O, knows a store or needs an event loop, so all of it can be read, tested and
reasoned about alone. Every other package but `config` stands above this one and may import it.
"""
