"""Ways to break pq on purpose."""
from typing import Any
BREAKAGES: dict[str, Any] = {}
