"""The broker of `memory://`: the whole contract in one process."""
