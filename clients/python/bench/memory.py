"""The memory of 1,000 connected clients: `python bench/memory.py ws://127.0.0.1:8080/ws [COUNT]`.

The server needs `auth.mode = "none"`. Each client joins one room, which needs no rule.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from signalbox_client import Client  # noqa: E402


def resident() -> int:
    """The resident memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def main(url: str, count: int) -> None:
    """Connect `count` clients and print the memory for each."""
    gc.collect()
    before = resident()
    clients = [Client(url, user_id=f"user-{number}") for number in range(count)]
    for start in range(0, count, 100):
        batch = clients[start : start + 100]
        for client in batch:
            client.connect()
        await asyncio.gather(*(client.join(f"room-{number}") for number, client in enumerate(batch, start)))
    gc.collect()
    used = resident() - before
    whole = resident() / 1024 / 1024
    each = used / count / 1024
    print(f"{count} clients, {used / 1024 / 1024:.1f} MiB, {each:.1f} KiB each, whole process {whole:.1f} MiB")
    await asyncio.gather(*(client.close() for client in clients))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000))
