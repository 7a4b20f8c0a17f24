"""Who asks while something fails: the load of the drills over two instances, with a form that one client renames and another one reads
with the token of the rename; and clients that do what they must not, for rows whose defence is off. Not here: what is made of
the ledger (judge.py)."""

import random
import subprocess
import threading
import time

from load import ACCOUNTS, ACKNOWLEDGED, ADMIN, CREATE_FORM, SUBMIT, Load, Read, number_of

RETITLE = "mutation($input: UpdateFormInput!) { payload: updateForm(input: $input) { node: form { id title } userErrors { code } } }"
TITLE = "query($id: ID!) { form(id: $id) { title } }"
# The kind of a write whose last value counts begins so.
TITLED = "name of the form"
REPEAT_SECONDS = 0.1


class Instances:
    """Asks them in turn. Where nobody listens the other one is asked, since nothing was sent."""

    def __init__(self, servers):
        self.servers, self.mine = servers, threading.local()

    def ask(self, *words, **headers):
        self.mine.turn = getattr(self.mine, "turn", random.randrange(2)) + 1
        for number in range(len(self.servers)):
            server = self.servers[(self.mine.turn + number) % len(self.servers)]
            try:
                return server.ask(*words, **headers)
            except ConnectionError as error:
                if not isinstance(error.__cause__, ConnectionRefusedError) or number + 1 == len(self.servers):
                    raise


class FaultLoad(Load):
    def __init__(self, rate, is_careless=False):
        super().__init__(rate)
        # Takes every failed write for not done and sends it again without a key.
        self.is_careless = is_careless
        self.is_paused, self.title = False, (0, None)

    def works(self):
        return [*super().works(), self.retitle, self.read_title]

    def work(self, work, pause, offset):
        def work_unless_paused():
            if not self.is_paused:
                work()
        super().work(work_unless_paused, pause, offset)

    def create_form(self):
        key = self.key()
        self.write_carelessly("form", key, CREATE_FORM, {"title": key})

    def create_form_until_acknowledged(self):
        if self.is_careless:
            return self.create_form()
        super().create_form_until_acknowledged()

    def submit(self):
        key = self.key()
        self.write_carelessly("submission", key, SUBMIT, {"formId": self.form, "data": {"name": key}})

    def write_carelessly(self, kind, key, query, variables):
        """Once, where the client is not careless."""
        while self.write(kind, key, query, variables, self.tokens[ADMIN]).outcome != ACKNOWLEDGED and self.is_careless and self.goes_on:
            time.sleep(REPEAT_SECONDS)

    def retitle(self):
        number = next(self.serial)
        done = self.write(TITLED, f"drill {number}", RETITLE, {"id": self.form, "title": f"drill {number}"}, self.tokens[ADMIN])
        if done.outcome == ACKNOWLEDGED and done.token:
            self.title = (number, done.token)

    def read_title(self):
        known, token = self.title
        headers = {"x-cache-token": token} if token else {}
        self.read(TITLE, {"id": self.form}, self.tokens[ADMIN], lambda data: known > number_of(data["form"]["title"]), **headers)


class ReplicaReader:
    """Reads names by SQL straight from a standby, as a server does that does not ask how far that is."""

    def __init__(self, load, standby):
        self.load, self.standby, self.goes_on = load, standby, True
        self.thread = threading.Thread(target=self.read_along)
        self.thread.start()

    def read_along(self):
        while self.goes_on:
            account = random.choice(ACCOUNTS)
            known, sent, is_stale = self.load.names[account], time.time(), False
            try:
                name = self.standby.sql(f"set statement_timeout = '2s'; select display_name from users where email = '{account}'", seconds=3)
                outcome, is_stale = ACKNOWLEDGED, known > number_of(name)
            except (RuntimeError, subprocess.TimeoutExpired):
                outcome = "no answer from the standby"
            with self.load.lock:
                self.load.reads.append(Read(sent, time.time(), outcome, is_stale))
            time.sleep(0.1)

    def stop(self):
        self.goes_on = False
        self.thread.join()
