#!/usr/bin/env python3
"""Stands for a long line: passes TCP connections on, at a rate that they share and with a delay.

    benches/line.py LISTEN TARGET MBIT ROUND_TRIP_MS WINDOW_KIB

Listens on 127.0.0.1:LISTEN and connects to 127.0.0.1:TARGET. Each direction carries MBIT Mbit/s, however
many connections there are. A byte arrives half a round trip after it was sent, a new connection takes a
whole round trip, and a connection has at most WINDOW_KIB KiB under way, as TCP's window would allow.
"""

import asyncio
import sys
import time

LISTEN, TARGET = int(sys.argv[1]), int(sys.argv[2])
BYTES_PER_SECOND = float(sys.argv[3]) * 1e6 / 8
DELAY = float(sys.argv[4]) / 1000 / 2
WINDOW = int(sys.argv[5]) * 1024
PIECE = 16 * 1024


class Direction:
    """One direction of the line, which sends one piece after the other."""

    def __init__(self):
        self.free_at = 0.0

    def arrival(self, length):
        """Returns when a piece arrives that is sent now, behind all that were sent before."""
        self.free_at = max(time.monotonic(), self.free_at) + length / BYTES_PER_SECOND
        return self.free_at + DELAY


async def carry(reader, writer, direction, opened_at):
    """Carries the bytes of one connection in one direction until it ends."""
    under_way = 0
    room = asyncio.Event()
    room.set()
    pieces = asyncio.Queue()

    async def deliver():
        nonlocal under_way
        while True:
            arrival, piece = await pieces.get()
            await asyncio.sleep(max(0.0, arrival - time.monotonic()))
            if piece is None:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(piece)
            await writer.drain()
            under_way -= len(piece)
            room.set()

    delivery = asyncio.create_task(deliver())
    try:
        while not delivery.done():
            if under_way >= WINDOW:
                room.clear()
                await room.wait()
                continue
            piece = await reader.read(PIECE)
            if not piece:
                break
            await asyncio.sleep(max(0.0, opened_at - time.monotonic()))
            under_way += len(piece)
            pieces.put_nowait((direction.arrival(len(piece)), piece))
        pieces.put_nowait((time.monotonic() + DELAY, None))
        await delivery
    except OSError:
        # One end has closed the connection; the other one hears of it below.
        delivery.cancel()


async def main():
    there, back = Direction(), Direction()

    async def connection(client_reader, client_writer):
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", TARGET)
        opened_at = time.monotonic() + 2 * DELAY
        await asyncio.gather(
            carry(client_reader, server_writer, there, opened_at),
            carry(server_reader, client_writer, back, 0.0),
        )
        client_writer.close()
        server_writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", LISTEN, backlog=512)
    await server.serve_forever()


asyncio.run(main())
