"""A clock of one's own for a program: libfaketime. Not here: who gets one."""

import os
from pathlib import Path


def library():
    """Where it is: where `./test` has found it, or where Debian puts it; nothing where it is not installed."""
    named = os.environ.get("XP_FAKETIME")
    return named or next((str(path) for path in sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def clock(file, offset):
    """What a process needs in its environment to go by a clock that is off by what stands in a file, as in `+600`. The other clock,
    which never jumps, is left alone: no operator can set it."""
    set_clock(file, offset)
    return {"LD_PRELOAD": library(), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def set_clock(file, offset):
    file.write_text(offset)
