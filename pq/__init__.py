"""`pq`: an asynchronous, actor-style task server for Python on Redis or Valkey.

The public names are in `pq.api`. Nothing is imported here, so `import pq` costs nothing.
"""

__version__ = "0.1.0"
