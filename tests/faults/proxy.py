"""Ways to servers that a row can cut, hold up, or let forget what went through them, on threads of their own. Not here: which
servers they lead to (topology.py) and when something happens to them (rows)."""

import asyncio
import collections
import threading

UP, DOWN = "up", "down"

# Cuts the connection that is the first to carry `after` bytes in one direction from now on, just there. With a word, the bytes
# are counted from the one that carries the word: those in its direction, or those of the answer.
Cut = collections.namedtuple("Cut", "direction after word")


class Proxy:
    """All ways of a run."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def way(self, port):
        """A new way to a port of this machine."""
        way = Way(self, port)
        self.run(way.open())
        return way

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


class Way:
    def __init__(self, proxy, target):
        self.proxy, self.target, self.port, self.links = proxy, target, None, set()
        # New connections: let through, swallowed, or closed at once.
        self.is_swallowing, self.is_refusing, self.delay, self.cut, self.forgets = False, False, 0.0, None, None
        self.carried = collections.Counter()

    async def open(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def accept(self, reader, writer):
        if self.is_refusing:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        link = Link(self, (reader, writer), there)
        self.links.add(link)
        try:
            await asyncio.gather(link.carry(UP), link.carry(DOWN))
        finally:
            self.links.discard(link)
            link.abort()

    def cut_all(self):
        """Closes all connections, as their server does when it ends."""
        async def cut():
            for link in list(self.links):
                link.abort()
        self.proxy.run(cut())

    def forget_all(self):
        """From now on nothing comes through the connections that there are, and nobody is told."""
        for link in list(self.links):
            link.is_forgotten = True
        return len(self.links)

    def forget_once(self, word):
        """Forgets the connection that is the first to carry a word upward; the word still goes through."""
        self.forgets = word

    def swallow(self, is_swallowing):
        """Nothing comes through at all, new connections included; or new ones again."""
        self.is_swallowing = is_swallowing
        self.forget_all()

    def cut_once(self, direction, after, word=None):
        for link in list(self.links):
            link.counted = None
        self.cut = Cut(direction, after, word)

    def was_cut(self):
        """Whether it has come to that; no connection is cut any more."""
        was_cut, self.cut = self.cut is None, None
        return was_cut


class Link:
    """One connection."""

    def __init__(self, way, client, server):
        self.way, self.is_forgotten, self.counted = way, way.is_swallowing, None
        self.ends = {UP: (client[0], server[1]), DOWN: (server[0], client[1])}

    async def carry(self, direction):
        reader, writer = self.ends[direction]
        try:
            while data := await reader.read(1 << 16):
                self.way.carried[direction] += len(data)
                if self.way.delay:
                    await asyncio.sleep(self.way.delay)
                if self.is_forgotten:
                    continue
                place = self.place_of_cut(direction, data)
                writer.write(data if place is None else data[:place])
                await writer.drain()
                if place is not None:
                    self.cut()
                    return
                if direction == UP and self.way.forgets and self.way.forgets in data:
                    self.is_forgotten, self.way.forgets = True, None
            # A peer whose other end was forgotten is not told that this one has left.
            if not self.is_forgotten:
                writer.close()
        except OSError:
            self.abort()

    def place_of_cut(self, direction, data):
        """How many of these bytes still go through; nothing where all do."""
        cut = self.way.cut
        if not cut:
            return None
        if self.counted is None:
            if cut.word and not (direction == UP and cut.word in data):
                return None
            self.counted = 0
        if direction != cut.direction:
            return None
        self.counted += len(data)
        if self.counted <= cut.after:
            return None
        self.way.cut = None
        return len(data) - (self.counted - cut.after)

    def cut(self):
        """What went through arrives, and nothing more: the last byte is out before the end is."""
        for _, writer in self.ends.values():
            writer.close()

    def abort(self):
        for _, writer in self.ends.values():
            writer.transport.abort()
