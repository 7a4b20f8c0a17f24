"""What is printed: a line for each row as soon as it has ended, and a table of all in the end. Not here: what is right and wrong
(judge.py)."""

COLUMNS = ("row", "failed", "p50/p99 before", "during", "after, ms", "first ok", "last failed", "lost", "doubled", "stale", "result")


def state(result, sabotaged):
    """What has come of a row, in a few words."""
    if result.not_run:
        return "NOT RUN"
    kinds = {kind for kind, _ in result.deviations}
    if not sabotaged:
        return f"WRONG: {', '.join(sorted(kinds))}" if kinds else "ok"
    if "broken" in kinds:
        return "WRONG: broken"
    seen = kinds & set(result.row.sabotage.expects)
    return f"seen: {', '.join(sorted(seen))}" if seen else "WRONG: not seen"


def is_well(result, sabotaged):
    return not state(result, sabotaged).startswith("WRONG")


def cells(result, sabotaged):
    failed = " ".join(f"{code}:{number}" for code, number in result.failed.most_common()) or "0"
    times = [f"{phase[0]:.0f}/{phase[1]:.0f}" if phase else "-" for phase in result.times] or ["-"] * 3
    seconds = ["-" if second == float("inf") else f"{second:.1f} s" for second in (result.first, result.last)]
    counts = [str(number) for number in (result.lost, result.doubled, result.stale)]
    last = state(result, sabotaged)
    if sabotaged:
        last += f" ({result.row.sabotage.kind})"
    return [result.row.name, failed, *times, *seconds, *counts, last]


def say(result, sabotaged):
    """As soon as it has ended."""
    print(f"{result.row.name}: {result.row.what}", flush=True)
    if sabotaged:
        print(f"  {result.row.sabotage.kind} off: {result.row.sabotage.what}")
    if result.not_run:
        print(f"  NOT RUN: {result.not_run}")
        return
    parts = [f"{name} {cell}" for name, cell in zip(COLUMNS[1:], cells(result, sabotaged)[1:])]
    print(f"  {result.seconds:.0f} s, {result.requests} requests", *parts, sep="; ")
    for kind, text in result.deviations:
        print(f"  {kind}: {text}")
    for note in result.notes:
        print("  " + note.replace("\n", "\n  "))


def show(results, sabotaged):
    lines = [COLUMNS, *(cells(result, sabotaged) for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    print()
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
