"""client.py MODE PORT: a WebSocket client; prints what happened, and ends with 0 when all was as it should be.

stream    1,000 messages each way at the same time, a ping, then the client closes
large     frames of 1 MiB each way at the same time, then one message in many frames
plain     the same without compression
many      50 connections at once
bye       the server closes
refused   the server does not want to
hold      says "open" once a message has come back, then waits for the end; at SIGUSR1 another message, and closes
quiet     says "open", then says nothing until the connection ends
stall     reads nothing of a flood until SIGUSR1, then all of it
busy      a ping each 50 ms for a second and a half, then closes
"""

import asyncio
import signal
import sys

import websockets
from messages import FLOOD, MIB, frame, receive_all, send_all

FRAMES = 16


def connect(path, **options):
    """A connection to that path."""
    options = {"max_size": None, "ping_interval": None, "open_timeout": 30, **options}
    return websockets.connect(f"ws://127.0.0.1:{sys.argv[2]}{path}", **options)


def ended(ws):
    """Says how the connection ended."""
    return f"closed {ws.close_code} {ws.close_reason}".strip()


async def stream():
    """Both ways at once."""
    async with connect("/stream", subprotocols=["first", "unknown"]) as ws:
        _, received = await asyncio.gather(send_all(ws, "client"), receive_all(ws, "server"))
        await (await ws.ping(b"are you there?"))
        await ws.close(1000, "all said")
    return f"received {received} {ws.subprotocol} {ended(ws)}"


async def large(**options):
    """Much in few frames: the echo fills every buffer on its way while more is sent."""
    async with connect("/echo", **options) as ws:
        sending = asyncio.create_task(send_frames(ws))
        for number in range(FRAMES):
            if await ws.recv() != frame(number):
                raise ValueError(f"frame {number} differs")
        await sending
        await ws.send(frame(0)[at : at + 4096] for at in range(0, MIB, 4096))
        if await ws.recv() != frame(0):
            raise ValueError("the message in pieces differs")
    return f"received {FRAMES + 1} {ended(ws)}"


async def send_frames(ws):
    """All of them, as fast as the other side takes them."""
    for number in range(FRAMES):
        await ws.send(frame(number))


async def plain():
    """Without the extension that compresses."""
    return await large(compression=None)


async def one_of_many(number):
    """A short talk."""
    async with connect("/echo") as ws:
        for i in range(20):
            await ws.send(f"{number} {i}")
            if await ws.recv() != f"{number} {i}":
                raise ValueError("an echo of somebody else")


async def many():
    """Many tunnels at a time."""
    await asyncio.gather(*(one_of_many(number) for number in range(50)))
    return "50 talks"


async def bye():
    """The server begins the close handshake."""
    async with connect("/bye") as ws:
        await ws.send("let us end this")
        await ws.wait_closed()
    return ended(ws)


async def refused():
    """An answer that is no 101."""
    try:
        async with connect("/refused"):
            return "accepted"
    except websockets.InvalidStatusCode as e:
        return f"status {e.status_code} {e.headers['X-Why']}"


async def hello(ws):
    """One message there and back, and says so."""
    await ws.send("hello")
    if await ws.recv() != "hello":
        raise ValueError("no echo")
    print("open", flush=True)


def sigusr1():
    """Set when that signal comes."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, asked.set)
    return asked


async def stall():
    """Back-pressure: what is not read here must not pile up anywhere."""
    asked = sigusr1()
    async with connect("/flood", max_queue=1, compression=None) as ws:
        print("open", flush=True)
        await asked.wait()
        for number in range(FLOOD):
            if await ws.recv() != frame(number):
                raise ValueError(f"frame {number} differs")
    return f"received {FLOOD} {ended(ws)}"


async def hold():
    """Until the end or SIGUSR1, whichever is first."""
    asked = sigusr1()
    async with connect("/echo") as ws:
        await hello(ws)
        waits = [asyncio.create_task(asked.wait()), asyncio.create_task(ws.wait_closed())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if asked.is_set():
            await ws.send("one more")
            if await ws.recv() != "one more":
                raise ValueError("no echo")
    waits[0].cancel()
    return ended(ws)


async def quiet():
    """Says nothing more."""
    async with connect("/echo") as ws:
        await hello(ws)
        await ws.wait_closed()
    return ended(ws)


async def busy():
    """Never quiet for long."""
    async with connect("/echo") as ws:
        await hello(ws)
        for _ in range(30):
            await (await ws.ping())
            await asyncio.sleep(0.05)
    return ended(ws)


MODES = (stream, large, plain, many, bye, refused, hold, quiet, stall, busy)
print(asyncio.run({mode.__name__: mode for mode in MODES}[sys.argv[1]]()), flush=True)
