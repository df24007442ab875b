"""server.py PORT: a WebSocket server on 127.0.0.1. It prints a line for each connection that has ended.

/stream   both sides send 1,000 messages at the same time
/echo     what comes goes back
/flood    the server sends 64 frames of 1 MiB, and says so when one has had to wait for 300 ms
/bye      the server closes, with a code of its own, at the first message
/refused  no WebSocket: 403
"""

import asyncio
import http
import sys

import websockets
from messages import FLOOD, frame, receive_all, send_all


async def refuse(path, _fields):
    """Answers without an upgrade where the path asks for that."""
    if path == "/refused":
        return http.HTTPStatus.FORBIDDEN, [("X-Why", "asked for")], b"not here\n"
    return None


async def flood(ws):
    """Much more than there is room for on the way."""
    blocked = False
    for number in range(FLOOD):
        sending = asyncio.create_task(ws.send(frame(number)))
        _, waiting = await asyncio.wait([sending], timeout=0.3)
        if waiting and not blocked:
            blocked = True
            print("/flood blocked", flush=True)
        await sending


async def serve(ws):
    """One connection."""
    received = 0
    try:
        if ws.path == "/stream":
            _, received = await asyncio.gather(send_all(ws, "server"), receive_all(ws, "client"))
        if ws.path == "/flood":
            await flood(ws)
        async for got in ws:
            received += 1
            if ws.path == "/bye":
                await ws.close(4001, "the server says so")
            else:
                await ws.send(got)
    except websockets.ConnectionClosed:
        pass
    print(f"{ws.path} received {received} closed {ws.close_code} {ws.close_reason}", flush=True)


async def main():
    """Serves until it is killed."""
    options = {"max_size": None, "ping_interval": None, "subprotocols": ["second", "first"]}
    async with websockets.serve(serve, "127.0.0.1", int(sys.argv[1]), process_request=refuse, **options):
        await asyncio.Future()


asyncio.run(main())
