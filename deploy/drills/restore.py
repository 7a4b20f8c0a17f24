#!/usr/bin/env python3
"""A drill of backup and restore, with a real server under load: PostgreSQL from a base backup and archived log to a moment and to
its end, SQLite from a copy that was made while the server wrote. Everything runs in a temporary folder and on loopback.

    restore.py xp                    the program of XP Graph; needs Python 3.9, PostgreSQL, Redis and sqlite3
    restore.py xp --sabotage late    restores to another moment (late, early) than the one that is checked, and must fail

What must hold: what was acknowledged before the moment is there once, nothing of what was sent after it is there, the rows of all
tables have the checksums that they had at the moment, passwords and tokens of before the moment are good with the same
`auth.secret`, what came after it is refused, and no cache answers with what is gone. docs/operations.md ("Backups") has the same
steps for a real database.

Exit codes: 0 all of it holds, 1 something does not, 2 wrong usage."""

import argparse
import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import postgres
from load import ACCOUNTS, ADMIN, NODES, STORED, Load, compare, new_form, stored
from postgres import Cluster, checksums, free_port, names_of_tables
from server import Program, code

SIGN_IN = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken refreshToken session { id } userErrors { code } } }"
REFRESH = "mutation($input: RefreshSessionInput!) { refreshSession(input: $input) { accessToken refreshToken userErrors { code } } }"
REVOKE = "mutation($input: RevokeSessionInput!) { revokeSession(input: $input) { session { id } userErrors { code } } }"
CREATE_USER = "mutation($input: CreateUserInput!) { createUser(input: $input) { user { id } userErrors { code } } }"
ME = "{ me { email } }"
FORMS = "query($after: String) { forms(first: 1, after: $after) { nodes { id } pageInfo { endCursor } } }"
PERSON, NEWCOMER = "person@example.net", "newcomer@example.net"
# How long a server that ran through the restore may answer with what it had read before.
NOTICED_WITHIN = 30


class Findings:
    """What was looked at, and what was not as it must be."""

    def __init__(self):
        self.wrong = []

    def say(self, what, problems=()):
        problems = list(problems)
        self.wrong += [f"{what}: {problem}" for problem in problems]
        print(f"  {'WRONG' if problems else 'ok   '} {what}{': ' if problems else ''}{', '.join(problems)}", flush=True)

    def note(self, text):
        print(f"  note  {text}", flush=True)


def main():
    options = parse()
    # Whoever ends this by SIGTERM does not leave servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun, findings = time.monotonic(), Findings()
    with tempfile.TemporaryDirectory(prefix="xp-restore-") as name:
        folder = Path(name)
        # PostgreSQL's account has a folder of its own in it.
        folder.chmod(0o711)
        drill = Drill(folder, options)
        try:
            drill.postgres(findings)
            if not options.sabotage:
                drill.sqlite(findings)
        except Exception:
            drill.show_logs()
            raise
        finally:
            drill.end()
    took = f"{time.monotonic() - begun:.0f} s"
    if findings.wrong:
        print(f"restore: {len(findings.wrong)} deviations after {took}:", *findings.wrong, sep="\n  ")
        return 1
    print(f"restore: no deviation; {took}")
    return 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, help="the program `xp`")
    parser.add_argument("--seconds", type=float, default=4, help="of load before the backup, before the moment, and after it")
    parser.add_argument("--rate", type=float, default=120, help="requests a second")
    parser.add_argument("--sabotage", choices=["early", "late"], help="restores to another moment")
    options = parser.parse_args()
    options.program = options.program.resolve()
    return options


class Drill:
    def __init__(self, folder, options):
        self.folder, self.options = folder, options
        self.clusters, self.servers, self.redis = [], [], None
        # Of all that stands in the database, what cannot be read without it is what it seals: keep it with the backups.
        self.secret = folder / "auth.secret"
        self.secret.write_text(secrets.token_urlsafe(32))
        self.other_secret = folder / "other.secret"
        self.other_secret.write_text(secrets.token_urlsafe(32))
        self.password = secrets.token_urlsafe(16)
        (folder / "password").write_text(self.password)

    def show_logs(self):
        for file in sorted(self.folder.rglob("*.log")):
            lines = [line for line in file.read_text(errors="replace").splitlines() if "is starting up" not in line]
            print(f"--- the end of {file.name}", *(line[:400] for line in lines[-5:]), sep="\n", file=sys.stderr)

    def end(self):
        for server in self.servers:
            server.kill()
        for cluster in self.clusters:
            cluster.stop()
        if self.redis:
            self.redis.terminate()
            self.redis.wait()

    def program(self, url, **more):
        return Program(str(self.options.program), self.folder, url, self.secret, XP_HTTP_REQUEST_TIMEOUT="10s", **more)

    def serve(self, program, name, **more):
        server = program.serve(name, **more)
        self.servers.append(server)
        return server

    def fill(self, program):
        """Schema, demo data, an account that signs in by password, and tokens of others."""
        program.command("migrate", "up")
        program.command("seed", "--size", "s")
        program.command("user", "create", "--email", PERSON, "--role", "editor", "--password-file", str(self.folder / "password"))
        return {email: program.token(email) for email in (*ACCOUNTS, ADMIN)}

    def sign_in(self, server, email=PERSON):
        done = server.data(SIGN_IN, {"input": {"email": email, "password": self.password}})["signIn"]
        assert done["accessToken"], done
        return done

    # --- PostgreSQL ----------------------------------------------------------------------------------------------

    def postgres(self, findings):
        headline(postgres.version())
        account = postgres.folder_for_account(self.folder / "postgres")
        archive, base, port = postgres.folder_for_account(account / "archive"), account / "base", free_port()
        primary = self.cluster(account / "primary", port, **postgres.settings("archive.conf", archive))
        primary.create()
        primary.start()
        primary.sql("create role app login", database="postgres")
        primary.sql("create database xp owner app", database="postgres")
        redis = free_port()
        self.redis = subprocess.Popen(
            ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)], stdout=subprocess.DEVNULL
        )
        program = self.program(primary.url("app"), REDIS_URL=f"redis://127.0.0.1:{redis}")
        tokens = self.fill(program)
        server = self.serve(program, "serving")
        form, load = new_form(server, tokens[ADMIN]), Load(self.options.rate)
        before = self.sign_in(server)
        ended = self.sign_in(server)

        load.start(server, tokens, form)
        time.sleep(self.options.seconds)
        postgres.run(
            postgres.program("pg_basebackup"), "--checkpoint=fast", "--no-sync", "--wal-method=stream", "-h", "127.0.0.1", "-p", port, "-U", "postgres",
            "-D", base,
        )
        primary.sql("select pg_create_restore_point('early')")
        time.sleep(self.options.seconds)
        moment = take_moment(primary, "moment")
        time.sleep(self.options.seconds / 2)
        after = self.sign_in(server)
        server.data(CREATE_USER, {"input": {"email": NEWCOMER, "displayName": "New", "role": "EDITOR", "password": self.password}}, tokens[ADMIN])
        newcomer = self.sign_in(server, NEWCOMER)
        refreshed = server.data(REFRESH, {"input": {"refreshToken": before["refreshToken"]}})["refreshSession"]
        server.data(REVOKE, {"input": {"id": ended["session"]["id"]}}, ended["accessToken"])
        time.sleep(self.options.seconds / 2)
        load.stop()
        primary.sql("select pg_create_restore_point('late')")
        writes, reads = load.outcomes()
        findings.note(f"load: writes {show(writes)}; reads {show(reads)}")
        findings.say("no stale read before the loss", [f"{load.stale()}"] if load.stale() else [])
        gone = [write.id for write in load.acknowledged() if write.sent >= moment.ended and write.kind in ("form", "submission")]
        assert gone and any(write.answered < moment.began for write in load.acknowledged()), "there was load on both sides"
        # What is gone later is in the caches now.
        read_all(server, tokens, gone)
        wait_for_archive(primary)
        primary.kill()
        findings.note(f"lost the primary (SIGKILL); the archive has {len(list(archive.iterdir()))} files")
        postgres.run(postgres.program("pg_verifybackup"), "--quiet", base)

        target = self.options.sabotage or "moment"
        headline(f"restored to {target if self.options.sabotage else 'the moment'}, while the server goes on")
        restored = self.restore(base, account / "moment", port, archive, target)
        restored.start()
        # It stands at its target and takes no writes: the time to look at it.
        findings.say("checksums of all tables", different(moment.checksums, checksums(restored)))
        findings.say("ledger", compare(load.writes, stored(restored.sql(STORED["postgres"])), moment.began, moment.ended))
        if self.options.sabotage:
            return
        promote(restored)
        noticed = self.wait_until_noticed(server, tokens, gone)
        findings.say(
            f"the server that ran on gives up what is gone ({noticed or NOTICED_WITHIN:.1f} s after the promotion)",
            [] if noticed is not None else [f"it still answers with it after {NOTICED_WITHIN} s"],
        )
        self.check_sign_in(findings, server, before, after, newcomer, refreshed=refreshed)
        more = Load(self.options.rate)
        more.serial = load.serial
        more.start(server, tokens, form)
        time.sleep(2)
        more.stop()
        findings.say("reads and writes go on", problems_of(more, restored))
        server.stop()
        restored.kill()

        headline("restored to the end, with the log of the lost server")
        # The disk outlived the server: what it had not archived yet is there.
        latest = self.restore(base, account / "latest", port, archive, None, log_of=primary.data)
        latest.start()
        wait_for_promotion(latest)
        findings.say("ledger: nothing that was acknowledged is lost", compare(load.writes, stored(latest.sql(STORED["postgres"]))))
        program.command("cache", "purge")
        server = self.serve(program, "latest")
        missing = len(gone) - read_all(server, tokens, gone)
        findings.say("what was acknowledged is answered", [f"{missing} rows are not"] if missing else [])
        server.stop()
        latest.kill()

        headline("restored to the moment, while no server runs")
        again = self.restore(base, account / "again", port, archive, target)
        again.start()
        findings.say("checksums of all tables, once more", different(moment.checksums, checksums(again)))
        promote(again)
        server = self.serve(program, "started-afterwards")
        answered = read_all(server, tokens, gone)
        findings.say("a server that starts afterwards answers nothing of what is gone", [f"{answered} rows are"] if answered else [])
        self.check_sign_in(findings, server, before, after, newcomer, ended=ended)
        cursor = server.data(FORMS, {}, tokens[ADMIN])["forms"]["pageInfo"]["endCursor"]
        server.stop()

        headline("restored without the secret")
        program.environment["XP_AUTH_SECRET_FILE"] = str(self.other_secret)
        try:
            self.serve(program, "other-secret")
            findings.say("`xp serve` refuses to start", ["it starts"])
        except RuntimeError as error:
            told = "sealed with another secret" in str(error) and "xp keys revoke" in str(error)
            findings.say("`xp serve` refuses to start, and says what to do", [] if told else [str(error)[-300:]])
        keys = json.loads(program.command("keys", "list", "--json"))
        for key in keys:
            if not key["readable"]:
                program.command("keys", "revoke", key["kid"])
        server = self.serve(program, "new-keys")
        lost = []
        if asked(server, ME, token=before["accessToken"]) == "":
            lost.append("access tokens of before are good")
        if refresh(server, before["refreshToken"]) == "":
            lost.append("refresh tokens of before are good")
        person = self.sign_in(server)
        if asked(server, FORMS, {"after": cursor}, person["accessToken"]) == "":
            lost.append("cursors of before are good")
        if asked(server, ME, token=person["accessToken"]):
            lost.append("who signs in again by password is refused")
        findings.say("after `xp keys revoke`: passwords are good, and no token or cursor of before is", lost)
        server.stop()
        again.stop()

    def cluster(self, data, port, **options):
        cluster = Cluster(data, port, **options)
        self.clusters.append(cluster)
        return cluster

    def restore(self, base, data, port, archive, target, log_of=None):
        """A new data directory from the base backup; `target` names the restore point to stop at."""
        postgres.run("cp", "-a", base, data)
        if log_of:
            postgres.run("rm", "-rf", data / "pg_wal")
            postgres.run("cp", "-a", log_of / "pg_wal", data / "pg_wal")
        postgres.run("touch", data / "recovery.signal")
        options = postgres.settings("restore.conf", archive)
        del options["recovery_target_time"]
        if target:
            options["recovery_target_name"] = target
        else:
            del options["recovery_target_action"]
        return self.cluster(data, port, **options)

    def wait_until_noticed(self, server, tokens, gone):
        """Seconds until the server answers with nothing that is gone; nothing where that lasts too long."""
        begun = time.monotonic()
        while time.monotonic() - begun < NOTICED_WITHIN:
            try:
                if not read_all(server, tokens, gone):
                    return time.monotonic() - begun
            except (RuntimeError, OSError):
                # Connections to the lost server are being replaced.
                pass
            time.sleep(0.1)
        return None

    def check_sign_in(self, findings, server, before, after, newcomer, refreshed=None, ended=None):
        """With the secret of before. `refreshed`: a token that a session of before got after the moment, `ended`: a session of before
        that was ended after the moment."""
        wrong = []
        if asked(server, ME, token=before["accessToken"]):
            wrong.append("a session of before the moment is refused")
        refused = refresh(server, refreshed["refreshToken"]) if refreshed else ""
        if refused:
            wrong.append(f"a session of before the moment cannot be gone on with: {refused}")
        if refresh(server, after["refreshToken"]) == "":
            wrong.append("a session of after the moment can be gone on with")
        if not asked(server, ME, token=newcomer["accessToken"]):
            wrong.append("an account of after the moment is good")
        if server.data(SIGN_IN, {"input": {"email": NEWCOMER, "password": self.password}})["signIn"]["accessToken"]:
            wrong.append("an account of after the moment can sign in")
        if asked(server, ME, token=self.sign_in(server)["accessToken"]):
            wrong.append("who signs in by password is refused")
        if ended and asked(server, ME, token=ended["accessToken"]):
            wrong.append("a session that was ended after the moment has not come back, though docs/operations.md says so")
        findings.say("sign-in with the same secret: accounts and sessions are those of the moment", wrong)

    # --- SQLite --------------------------------------------------------------------------------------------------

    def sqlite(self, findings):
        headline(f"SQLite {sqlite(':memory:', 'select sqlite_version()')}")
        file = self.folder / "live.db"
        program = self.program(f"sqlite:{file}")
        tokens = self.fill(program)
        server = self.serve(program, "sqlite")
        form, load = new_form(server, tokens[ADMIN]), Load(self.options.rate)
        before = self.sign_in(server)
        load.start(server, tokens, form)
        copies = []
        for name, statement in (("vacuum", "vacuum into '{}'"), ("backup", ".backup '{}'")):
            time.sleep(self.options.seconds / 2)
            copy, began = self.folder / f"{name}.db", time.time()
            sqlite(file, statement.format(copy))
            copies.append((statement.split(" '")[0], copy, began, time.time()))
        time.sleep(self.options.seconds / 2)
        load.stop()
        server.stop()
        findings.note(f"load: writes {show(load.outcomes()[0])}; stale reads: {load.stale()}")
        for name, copy, began, ended in copies:
            sound = sqlite(copy, "pragma integrity_check") + sqlite(copy, "pragma foreign_key_check")
            findings.say(f"`{name}` while the server writes ({ended - began:.1f} s): the file is sound", [] if sound == "ok" else [sound])
            findings.say("ledger", compare(load.writes, stored(sqlite(copy, STORED["sqlite"])), began, ended))
        still = self.folder / "still.db"
        sqlite(file, f".backup '{still}'")
        findings.say("`.backup` of a server that rests: rows of all tables", different(sqlite_rows(file), sqlite_rows(still)))
        restored = self.folder / "restored.db"
        shutil.copy(copies[0][1], restored)
        server = self.serve(self.program(f"sqlite:{restored}"), "sqlite-restored")
        wrong = [f"a session of before: {why}" for why in [asked(server, ME, token=before["accessToken"])] if why]
        wrong += [f"who signs in: {why}" for why in [asked(server, ME, token=self.sign_in(server)["accessToken"])] if why]
        findings.say("a server on the restored file: sign-in with the same secret", wrong)
        server.stop()


class Moment:
    """Between `began` and `ended` lies the moment, in which all tables had these checksums."""

    def __init__(self, began, ended, checksums):
        self.began, self.ended, self.checksums = began, ended, checksums


def take_moment(primary, name):
    """Names a moment of the log, and notes what the tables hold in it. Nobody writes meanwhile, so nothing is between the two; where
    that cannot be had without making somebody give up, this gives up and tries again."""
    tables = ", ".join(f'"{table}"' for table in names_of_tables(primary))
    for _ in range(100):
        try:
            began = time.time()
            lines = primary.sql(
                f"begin; set local deadlock_timeout = '10ms'; set local lock_timeout = '500ms';\n"
                f"lock table {tables} in share mode;\n{postgres.TABLES} \\gexec\n"
                f"select pg_create_restore_point('{name}') \\g /dev/null\ncommit;"
            )
            return Moment(began, time.time(), postgres.read_checksums(lines))
        except RuntimeError as error:
            if "deadlock" not in str(error) and "lock timeout" not in str(error):
                raise
    raise RuntimeError("the tables are never free of writers")


def wait_for_archive(primary):
    """Until the file of the log that holds everything so far is in the archive."""
    file = primary.sql("select pg_walfile_name(pg_switch_wal())")
    until = time.monotonic() + 60
    while primary.sql(f"select coalesce(last_archived_wal >= '{file}', false) from pg_stat_archiver") != "t":
        assert time.monotonic() < until, f"{file} is archived: {primary.log()[-2000:]}"
        time.sleep(0.1)


def promote(cluster):
    """A server that stands at its target becomes a primary."""
    until = time.monotonic() + 60
    while cluster.sql("select pg_get_wal_replay_pause_state()") != "paused":
        assert time.monotonic() < until, f"it has come to its target: {cluster.log()[-2000:]}"
        time.sleep(0.1)
    cluster.sql("select pg_wal_replay_resume()")
    wait_for_promotion(cluster)


def wait_for_promotion(cluster):
    until = time.monotonic() + 60
    while cluster.sql("select pg_is_in_recovery()") != "f":
        assert time.monotonic() < until, f"it takes writes: {cluster.log()[-2000:]}"
        time.sleep(0.1)


def different(wanted, found):
    return [
        f"{name} has {found.get(name, (0, ''))[0]} rows of {wanted.get(name, (0, ''))[0]}, or others"
        for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)
    ]


def problems_of(load, cluster):
    writes, reads = load.outcomes()
    done = min(writes["acknowledged"], reads["acknowledged"])
    problems = [] if done > 10 else [f"writes: {show(writes)}; reads: {show(reads)}"]
    problems += [f"{load.stale()} stale reads"] if load.stale() else []
    return problems + compare(load.writes, stored(cluster.sql(STORED["postgres"])))


def read_all(server, tokens, ids):
    """How many of these rows are answered."""
    found = 0
    for start in range(0, len(ids), 100):
        found += sum(node is not None for node in server.data(NODES, {"ids": ids[start:start + 100]}, tokens[ADMIN])["nodes"])
    return found


def asked(server, query, variables=None, token=None):
    """Why it was refused; nothing where it was answered."""
    status, answer = server.ask(query, variables, token)
    why = code(status, answer)
    return why or ("" if None not in answer["data"].values() else "null")


def refresh(server, token):
    """Why it was refused; nothing where it was exchanged. A server that has just lost its database refuses writes with UNAVAILABLE until
    it has found the new one: clients ask again."""
    end = time.monotonic() + NOTICED_WITHIN
    while True:
        status, answer = server.ask(REFRESH, {"input": {"refreshToken": token}})
        why = code(status, answer)
        if why != "UNAVAILABLE" or time.monotonic() > end:
            break
        time.sleep(0.1)
    payload = (answer.get("data") or {}).get("refreshSession") or {}
    return why or ("" if payload.get("accessToken") else "refused")


def sqlite(file, statement):
    done = subprocess.run(["sqlite3", "-batch", "-cmd", ".timeout 60000", str(file), statement], capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        raise RuntimeError(f"{statement}: {done.stderr}")
    return done.stdout.strip()


def sqlite_rows(file):
    """Of all tables: name → (rows, what `.sha3sum` says)."""
    names = sqlite(file, "select name from sqlite_master where type = 'table' order by 1").split()
    return {name: (int(sqlite(file, f'select count(*) from "{name}"')), sqlite(file, f".sha3sum {name}")) for name in names}


def show(outcomes):
    return ", ".join(f"{count} {what}" for what, count in outcomes.most_common()) or "none"


def headline(text):
    print(f"{time.strftime('%H:%M:%S')} {text}:", flush=True)


if __name__ == "__main__":
    sys.exit(main())
