"""Operations of a settlement: the fate of a task after an attempt, as a letter for the store.

The scripts compare these letters (`pq/broker/lua/settle.lua`), so they are part of the protocol: an old and a new
worker may settle in one store. `pq.model.ending` decides which of them an attempt ends with.
"""

from __future__ import annotations

ACK = "a"  # succeeded: finished record, done event
FAIL = "f"  # failed for good: the same, and into the dead set
REVOKE = "v"  # cancelled, timed out, expired: finished, not dead
RETRY = "t"  # another attempt after a wait; the record is replaced by a live one
RELEASE = "l"  # handed back unspent: to the front of the queue, the record as it was
CRASH = "c"  # the same, charged with a crash: the process that ran it died
