"""The contract that every store keeps: its verbs, by subject, and the values they exchange."""
