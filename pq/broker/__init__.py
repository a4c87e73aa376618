"""The only room that knows a store: how tasks are kept, leased and settled."""
