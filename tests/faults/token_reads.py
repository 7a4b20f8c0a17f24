"""Clients that write rows and read them back with the cache's token of the write, on both instances, one after the other and all at once:
each read has to be as new as what its client was told before. Not here: the servers, and how far standbys are behind (replicas.py)."""

import asyncio
import collections
import json
import random
import re
import time

from ledger import RETITLE, TITLE
from load import ACCOUNTS, ADMIN, NAME, RENAME, SUBMIT, new_form, number_of
from server import IDLE_SECONDS, code

COUNT = "query($id: ID!) { form(id: $id) { submissionCount } }"
# What a mutation reads back is cached with it, so that nobody loads it afterwards.
READ_BACK = re.compile(r"node: \w+ \{[^}]*\} ")
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
MOST_BYTES = 1 << 20
TITLES, COUNTS = 48, 16
# Each second client reads as much later than it wrote, in parts of the lag, as chance has it: before standbys have it, or after.
LATEST = 1.5
REST_SECONDS = 2
REPEAT_SECONDS = 0.05


class Connections:
    """To one instance, kept alive."""

    def __init__(self, port):
        self.port, self.idle = port, []

    async def ask(self, query, variables, token, cache_token=None):
        """The answer: (status, JSON)."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        lines = ["POST /graphql HTTP/1.1", f"host: 127.0.0.1:{self.port}", "content-type: application/json"]
        lines += [f"authorization: Bearer {token}", f"content-length: {len(body)}"]
        lines += [f"x-cache-token: {cache_token}"] if cache_token else []
        reader, writer = await self.connection()
        writer.write("\r\n".join([*lines, "\r\n"]).encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        answer = await reader.readexactly(int(CONTENT_LENGTH.search(head)[1]))
        self.idle.append((time.monotonic(), reader, writer))
        return int(head.split(b" ", 2)[1]), json.loads(answer)

    async def connection(self):
        while self.idle:
            used, reader, writer = self.idle.pop()
            if time.monotonic() - used < IDLE_SECONDS:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port, limit=MOST_BYTES)

    def close(self):
        for _, _, writer in self.idle:
            writer.close()


# --- rows ------------------------------------------------------------------------------------------------------------

class Title:
    """A form's title: a row that is found by its id."""
    mutation, query = RETITLE, TITLE

    def __init__(self, form, token):
        self.form, self.token = form, token
        # What was acknowledged last, and the cache's token of it.
        self.known, self.cache_token = 0, None

    def input(self, number):
        return {"id": self.form, "title": f"drill {number}"}

    def variables(self):
        return {"id": self.form}

    def seen(self, data):
        return number_of(data["form"]["title"])

    def sql(self):
        return f"select coalesce(substring(title from 'drill ([0-9]+)'), '0') from forms where id = '{self.form}'"


class Count(Title):
    """How many submissions a form has: what hangs together with rows that others make."""
    mutation, query = SUBMIT, COUNT

    def input(self, number):
        return {"formId": self.form, "data": {"name": f"drill {number}"}}

    def seen(self, data):
        return data["form"]["submissionCount"]

    def sql(self):
        return f"select count(*) from form_submissions where form_id = '{self.form}'"


class Name(Title):
    """An account's name, which instances check against Redis at each read."""
    mutation, query = RENAME, NAME

    def input(self, number):
        return {"displayName": f"drill {number}"}

    def variables(self):
        return {}

    def seen(self, data):
        return number_of(data["me"]["displayName"])

    def sql(self):
        return f"select coalesce(substring(display_name from 'drill ([0-9]+)'), '0') from users where email = '{self.form}'"


def make_rows(server, tokens):
    forms = [new_form(server, tokens[ADMIN]) for _ in range(TITLES + COUNTS)]
    rows = [Title(form, tokens[ADMIN]) for form in forms[:TITLES]] + [Count(form, tokens[ADMIN]) for form in forms[TITLES:]]
    return rows + [Name(account, tokens[account]) for account in ACCOUNTS]


# --- clients ---------------------------------------------------------------------------------------------------------

class Tally:
    """What came of the reads at one lag."""

    def __init__(self):
        self.reads, self.stale, self.refused = collections.Counter(), collections.Counter(), collections.Counter()
        self.writes, self.seconds, self.examples = 0, [], []


class TokenReads:
    """All clients at one lag. With a standby rows are read from there by SQL, and no server is asked."""

    def __init__(self, ports, rows, lag, number, standby=None):
        self.ports, self.rows, self.lag, self.number, self.standby = ports, rows, lag, number, standby
        self.tally = Tally()

    def run(self):
        asyncio.run(self.all())
        return self.tally

    async def all(self):
        self.instances = [Connections(port) for port in self.ports]
        late = self.rows[::2]
        # Nobody else reads those meanwhile, so that they are not cached yet.
        self.shared = self.rows[1::2]
        await asyncio.gather(*(self.client(row, row in late) for row in self.rows))
        for instance in self.instances:
            instance.close()

    async def client(self, row, is_late):
        while sum(self.tally.reads.values()) < self.number:
            here, there = random.sample(self.instances, 2)
            await self.write(row, here)
            if is_late:
                await asyncio.sleep(random.uniform(0, LATEST * self.lag))
            first = [("here", here, True), ("elsewhere", there, True), ("here, no token", here, False)]
            for how, instance, has_token in random.sample(first, len(first)):
                await self.read(how, row, instance, has_token)
            others = [self.read("of others", random.choice(self.shared), instance, True) for instance in self.instances]
            # This one may be behind for a moment: it is there to fill the cache.
            others.append(self.ask(there, row, row.query, row.variables()))
            await asyncio.gather(self.read("here", row, here, True), self.read("elsewhere", row, there, True), *others)

    async def ask(self, instance, row, query, variables, cache_token=None):
        """The data of an answer, sooner or later: an instance with too much to do says so."""
        while True:
            status, answer = await instance.ask(query, variables, row.token, cache_token)
            refusal = code(status, answer)
            if not refusal:
                return answer
            self.tally.refused[refusal] += 1
            if refusal not in ("OVERLOADED", "UNAVAILABLE"):
                raise RuntimeError(f"{query}: {status} {answer}")
            await asyncio.sleep(REPEAT_SECONDS)

    async def write(self, row, instance):
        number = row.known + 1
        mutation = row.mutation if number % 2 else READ_BACK.sub("", row.mutation)
        answer = await self.ask(instance, row, mutation, {"input": row.input(number)})
        assert not answer["data"]["payload"]["userErrors"], answer
        row.known, row.cache_token = number, answer["extensions"]["cacheToken"]
        self.tally.writes += 1

    async def read(self, how, row, instance, has_token):
        known, sent = row.known, time.monotonic()
        if self.standby:
            seen = int(await asyncio.to_thread(self.standby.sql, row.sql()))
        else:
            answer = await self.ask(instance, row, row.query, row.variables(), row.cache_token if has_token else None)
            seen = row.seen(answer["data"])
        self.tally.seconds.append(time.monotonic() - sent)
        self.tally.reads[how] += 1
        if seen < known:
            self.tally.stale[how] += 1
            self.tally.examples.append(f"{type(row).__name__} {row.form}, {how}: {seen} was read, and {known} acknowledged")


def rows_left_old(ports, rows, primary):
    """Rows that an instance shows otherwise than the primary has them, a while after the last write; without tokens, all of them twice."""
    time.sleep(REST_SECONDS)
    stored = [int(number) for number in primary.sql(";\n".join(row.sql() for row in rows)).split()]

    async def look():
        old, reads = [], TokenReads(ports, rows, 0, 0)
        instances = [Connections(port) for port in ports]
        for place, instance in [*enumerate(instances, 1)] * 2:
            for row, number in zip(rows, stored):
                seen = row.seen((await reads.ask(instance, row, row.query, row.variables()))["data"])
                if seen != number:
                    old.append(f"{type(row).__name__} {row.form}: instance {place} shows {seen}, and {number} is stored")
        for instance in instances:
            instance.close()
        return old
    return asyncio.run(look())
