"""Posts photographs to a serving app from a separate process, and prints its measurements as JSON.

    python -m bench.client --port 8080 --photographs DIR --concurrency 8 --seconds 5
    python -m bench.client --port 8080 --photographs DIR --rate 60 --seconds 20

Without a rate, each of `concurrency` callers asks again as soon as it is answered. With one, requests are sent
at random times (exponential gaps), whether or not earlier ones are answered, and timed from when they were due.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from pathlib import Path

import uvloop

HEAD = "POST /invocations HTTP/1.1\r\nhost: bench\r\ncontent-type: image/jpeg\r\ncontent-length: {}\r\n\r\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.port, self.requests = port, itertools.cycle(requests)
        self.idle: list[Connection] = []
        self.latencies: list[float] = []  # seconds

    async def ask(self, due: float) -> None:
        """Sends one photograph; any answer except a 200 ends the run."""
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(next(self.requests))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b" 200 " not in head[:16]:
            raise SystemExit(f"the server refused a photograph: {body.decode()}")
        self.latencies.append(time.perf_counter() - due)
        self.idle.append((reader, writer))

    async def closed(self, concurrency: int, seconds: float) -> None:
        end = time.perf_counter() + seconds

        async def caller() -> None:
            while (now := time.perf_counter()) < end:
                await self.ask(now)

        await asyncio.gather(*(caller() for _ in range(concurrency)))

    async def open(self, rate: float, seconds: float) -> None:
        gaps = random.Random(1)
        due = time.perf_counter()
        end = due + seconds
        async with asyncio.TaskGroup() as asking:
            while due < end:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                asking.create_task(self.ask(due))
                due += gaps.expovariate(rate)


async def measure(options: argparse.Namespace) -> dict[str, float | None]:
    photographs = [path.read_bytes() for path in sorted(options.photographs.glob("*.jp*g"))]
    client = Client(options.port, [HEAD.format(len(one)).encode() + one for one in photographs])
    await client.closed(options.concurrency, 0.5)  # connections are open, caches are warm
    warmed_up = len(client.latencies)
    client.latencies.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    if options.rate:
        await client.open(options.rate, options.seconds)
    else:
        await client.closed(options.concurrency, options.seconds)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    ranked = sorted(client.latencies)
    return {
        "photographs": len(ranked),
        "warmed_up": warmed_up,
        "concurrency": None if options.rate else options.concurrency,
        "wall_s": wall,
        "client_cpu_s": cpu,
        "p50_ms": 1000 * ranked[len(ranked) // 2],
        "p99_ms": 1000 * ranked[int(len(ranked) * 0.99)],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seconds", type=float, default=5)
    print(json.dumps(uvloop.run(measure(parser.parse_args()))))
