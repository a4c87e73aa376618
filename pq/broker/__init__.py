"""The only package that knows a store: how tasks are kept, leased and settled."""
