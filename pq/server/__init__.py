"""Many processes, actor-style: a supervisor, its workers, and the mailboxes between them."""
