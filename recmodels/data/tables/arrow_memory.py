"""Where Arrow takes memory from."""

from __future__ import annotations

import pyarrow as pa

#: Of Arrow's allocators the one that keeps least of what is free again; not every platform has it.
POOL = pa.jemalloc_memory_pool() if "jemalloc" in pa.supported_memory_backends() else pa.default_memory_pool()
