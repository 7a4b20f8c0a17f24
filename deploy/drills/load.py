"""Requests to a server, about so many a second, with a ledger: what was written, when it was sent and answered, and what the answer
said; each read is compared with what was acknowledged before it was sent. Afterwards the ledger is compared with what the
database has. Not here: what is done to the database meanwhile (restore.py, failover.py)."""

import collections
import datetime
import itertools
import random
import threading
import time
import uuid

from server import code

ACKNOWLEDGED = "acknowledged"
# What the answer says about a write that is not acknowledged: it is not stored, or that is not known.
NOT_STORED = {"UNAVAILABLE", "TIMEOUT", "OVERLOADED", "RATE_LIMITED"}
# The accounts of the demo data. Each has one writer, so that there is one right answer for each read.
ACCOUNTS = ("manager@example.com", "editor@example.com", "collector@example.com", "viewer@example.com")
RECORDERS = ACCOUNTS[:3]
ADMIN = "admin@example.com"
LONGITUDE = 13.25
DEFINITION = {"schema": 1, "fields": [{"key": "name", "type": "TEXT", "label": "Name"}]}

CREATE_FORM = "mutation($input: CreateFormInput!) { payload: createForm(input: $input) { node: form { id } userErrors { code } } }"
SUBMIT = "mutation($input: CreateSubmissionInput!) { payload: createSubmission(input: $input) { node: submission { id } userErrors { code } } }"
RECORD = """mutation($input: RecordLocationsInput!) { payload: recordLocations(input: $input) {
  acceptedCount results { node: location { id } userErrors { code } } } }"""
RENAME = "mutation($input: UpdateProfileInput!) { payload: updateProfile(input: $input) { node: user { id displayName } userErrors { code } } }"
NAME = "{ me { displayName } }"
NODES = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }"

# The token is that of the cache: with it, a read anywhere is as new as the write.
Write = collections.namedtuple("Write", "kind key sent answered outcome id token")
Read = collections.namedtuple("Read", "sent answered outcome stale")

# How what was written is found in the database, by kind and key. Forms, submissions and positions could be there twice.
STORED = {
    "postgres": """select 'form', title from forms where title like 'drill %'
        union all select 'submission', data->>'name' from form_submissions where data->>'name' like 'drill %'
        union all select 'position', 'drill ' || round(latitude::numeric * 1000000)::bigint from user_locations where longitude = 13.25
        union all select 'name ' || email, display_name from users where display_name like 'drill %'""",
    "sqlite": """select 'form', title from forms where title like 'drill %'
        union all select 'submission', data->>'name' from form_submissions where data->>'name' like 'drill %'
        union all select 'position', 'drill ' || cast(round(latitude * 1000000) as integer) from user_locations where longitude = 13.25
        union all select 'name ' || email, display_name from users where display_name like 'drill %'""",
}


def stored(lines):
    """What the statement above answered, as a count of each (kind, key)."""
    return collections.Counter(tuple(line.split("|", 1)) for line in lines.splitlines())


def new_form(server, token):
    """A form that takes submissions."""
    made = "mutation($input: CreateFormInput!) { createForm(input: $input) { form { id draftRevision } } }"
    form = server.data(made, {"input": {"title": "Form of a drill", "definition": DEFINITION}}, token)["createForm"]["form"]
    publish = "mutation($input: PublishFormInput!) { publishForm(input: $input) { form { status } userErrors { message } } }"
    done = server.data(publish, {"input": {"id": form["id"], "baseRevision": form["draftRevision"]}}, token)
    assert done["publishForm"]["form"]["status"] == "OPEN", done
    return form["id"]


class Load:
    """Runs until it is stopped. The ledger is kept over several servers, so that keys are given once."""

    def __init__(self, rate=200):
        self.rate, self.serial = rate, itertools.count(10_000_000)
        self.writes, self.reads, self.lock = [], [], threading.Lock()
        # By account, the number of the name that was acknowledged last.
        self.names, self.nodes = collections.Counter(), collections.deque(maxlen=2000)
        self.began = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
        self.goes_on, self.threads, self.pauses = False, [], []

    def start(self, server, tokens, form):
        self.server, self.tokens, self.form, self.goes_on = server, tokens, form, True
        works = self.works()
        pause = len(works) / self.rate
        self.threads = [threading.Thread(target=self.work, args=(work, pause, pause * index / len(works))) for index, work in enumerate(works)]
        self.threads.append(threading.Thread(target=self.watch_the_clock))
        for thread in self.threads:
            thread.start()

    def works(self):
        """What is done all the time, each by a thread of its own."""
        works = [self.create_form] * 2 + [self.create_form_until_acknowledged] + [self.submit] * 2 + [self.record] * 2 + [self.read_nodes] * 4
        works += [lambda account=account: self.rename(account) for account in ACCOUNTS]
        return works + [lambda account=account: self.read_name(account) for account in ACCOUNTS]

    def stop(self):
        self.goes_on = False
        for thread in self.threads:
            thread.join()
        self.threads = []

    def work(self, work, pause, offset):
        due = time.monotonic() + offset
        while self.goes_on:
            time.sleep(max(0, due - time.monotonic()))
            work()
            # What could not be sent in time is not made up for.
            due = max(due + pause, time.monotonic())

    def watch_the_clock(self):
        """Notes when this machine, or this process, stood still: what came of requests then says nothing about the server."""
        last = time.time()
        while self.goes_on:
            time.sleep(0.1)
            now = time.time()
            if now - last > 5:
                self.pauses.append((last, now))
            last = now

    def was_paused(self, request):
        return any(request.sent < until and since < request.answered for since, until in self.pauses)

    def write(self, kind, key, query, variables, token, **headers):
        sent = time.time()
        node = cache = None
        try:
            status, answer = self.server.ask(query, {"input": variables}, token, **headers)
            outcome = code(status, answer)
            payload = (answer.get("data") or {}).get("payload") or {}
            cache = (answer.get("extensions") or {}).get("cacheToken")
            errors = answer.get("errors") or [{}]
            # Stored, but it could not be read back.
            node = (errors[0].get("extensions") or {}).get("stored")
            if node or not outcome:
                results = payload.get("results") or [payload]
                refused = [error["code"] for result in results for error in result.get("userErrors") or []]
                outcome = f"userErrors {refused[0]}" if refused else ACKNOWLEDGED
                node = node or (results[0].get("node") or {}).get("id")
        except OSError as error:
            outcome = f"connection lost: {error}"
        done = Write(kind, key, sent, time.time(), outcome, node, cache)
        with self.lock:
            self.writes.append(done)
            if outcome == ACKNOWLEDGED and isinstance(node, str) and kind in ("form", "submission"):
                self.nodes.append(node)
        return done

    def key(self):
        return f"drill {next(self.serial)}"

    def create_form(self):
        key = self.key()
        self.write("form", key, CREATE_FORM, {"title": key}, self.tokens[ADMIN])

    def create_form_until_acknowledged(self):
        """Sends the same again with its key, as a careful client does: it must be there once."""
        key, idempotency = self.key(), str(uuid.uuid4())
        for attempt in range(200):
            done = self.write("form", key, CREATE_FORM, {"title": key}, self.tokens[ADMIN], **{"idempotency-key": idempotency})
            if done.outcome == ACKNOWLEDGED or (attempt and not self.goes_on):
                return
            time.sleep(0.1)

    def submit(self):
        key = self.key()
        self.write("submission", key, SUBMIT, {"formId": self.form, "data": {"name": key}}, self.tokens[ADMIN])

    def record(self):
        number = next(self.serial)
        time_of_device = (self.began + datetime.timedelta(milliseconds=number - 10_000_000)).isoformat()
        point = {"clientId": f"drill {number}", "timestamp": time_of_device, "latitude": number / 1e6, "longitude": LONGITUDE}
        self.write("position", f"drill {number}", RECORD, {"points": [point]}, self.tokens[random.choice(RECORDERS)])

    def rename(self, account):
        number = next(self.serial)
        done = self.write(f"name {account}", f"drill {number}", RENAME, {"displayName": f"drill {number}"}, self.tokens[account])
        if done.outcome == ACKNOWLEDGED:
            self.names[account] = number

    def read_name(self, account):
        known = self.names[account]
        self.read(NAME, None, self.tokens[account], lambda data: known > number_of(data["me"]["displayName"]))

    def read_nodes(self):
        with self.lock:
            ids = random.sample(self.nodes, min(len(self.nodes), 5)) + list(self.nodes)[-2:]
        self.read(NODES, {"ids": ids}, self.tokens[ADMIN], lambda data: None in data["nodes"])

    def read(self, query, variables, token, is_stale, **headers):
        sent, stale = time.time(), False
        try:
            status, answer = self.server.ask(query, variables, token, **headers)
            outcome = code(status, answer) or ACKNOWLEDGED
            if outcome == ACKNOWLEDGED:
                stale = is_stale(answer["data"])
        except OSError as error:
            outcome = f"connection lost: {error}"
        with self.lock:
            self.reads.append(Read(sent, time.time(), outcome, stale))

    def outcomes(self, since=0.0, until=float("inf")):
        """How many requests that were answered in this time were acknowledged, and how many were refused, by code."""
        with self.lock:
            writes = collections.Counter(write.outcome for write in self.writes if since <= write.answered < until)
            reads = collections.Counter(read.outcome for read in self.reads if since <= read.answered < until)
        return writes, reads

    def acknowledged(self):
        with self.lock:
            return [write for write in self.writes if write.outcome == ACKNOWLEDGED]

    def stale(self):
        with self.lock:
            return sum(read.stale for read in self.reads)


def number_of(name):
    return int(name.split(" ")[1]) if name.startswith("drill ") else 0


def compare(writes, found, began=float("inf"), ended=float("inf")):
    """What is not as it must be in a database that holds everything until a moment. The moment lies between two times: what was
    acknowledged before the first is there once, what was sent after the second is not, and nothing is there twice. Without a
    moment the database holds everything. What was refused and said to be unchanged is not there."""
    problems, by_key = collections.Counter(), collections.defaultdict(list)
    for write in writes:
        by_key[write.kind, write.key].append(write)
    for (kind, key), attempts in by_key.items():
        if kind.startswith("name "):
            continue
        count = found[kind, key]
        is_before = any(write.outcome == ACKNOWLEDGED and write.answered <= began for write in attempts)
        is_after = all(write.sent >= ended for write in attempts)
        is_unchanged = all(write.outcome in NOT_STORED or write.outcome.startswith("userErrors") for write in attempts)
        if is_before and not count:
            problems["acknowledged and lost"] += 1
        if count > 1:
            problems["there twice"] += 1
        if is_after and count:
            problems["written after the moment and there"] += 1
        if is_unchanged and count:
            problems["refused as not stored, and there"] += 1
    for kind in {kind for kind, _ in by_key if kind.startswith("name ")}:
        mine = [write for write in writes if write.kind == kind]
        [name] = [number_of(key) for other, key in found if other == kind] or [0]
        least = max((number_of(write.key) for write in mine if write.outcome == ACKNOWLEDGED and write.answered <= began), default=0)
        most = max((number_of(write.key) for write in mine if write.sent < ended), default=0)
        if name < least:
            problems["acknowledged and lost"] += 1
        if name > most:
            problems["written after the moment and there"] += 1
    return [f"{count} {problem}" for problem, count in sorted(problems.items())]
