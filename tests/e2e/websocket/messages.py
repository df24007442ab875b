"""What the WebSocket server and client of the tests say to each other."""

COUNT = 1000
MIB = 1 << 20
FLOOD = 64
LENGTHS = (0, 1, 125, 126, 1000)  # 126 is the first with a longer length field, 65536 the first with the longest


def message(side, number):
    """The message with that number from that side: text and binary in turn, of all kinds of length."""
    length = 65536 if number % 100 == 99 else LENGTHS[number % len(LENGTHS)]
    text = f"{side} {number} " + "x" * length
    return text if number % 2 else text.encode()


def frame(number):
    """A binary message of 1 MiB that no other is like."""
    return number.to_bytes(4, "big") + bytes(range(256)) * (MIB // 256 - 1) + bytes(252)


async def send_all(ws, side):
    """Sends all messages of that side."""
    for number in range(COUNT):
        await ws.send(message(side, number))


async def receive_all(ws, side):
    """Receives all messages of the other side, in order; returns how many there were."""
    for number in range(COUNT):
        got = await ws.recv()
        if got != message(side, number):
            raise ValueError(f"message {number} of {side} differs: {got[:40]!r}, {len(got)} long")
    return COUNT
