// What has changed from one answer to the next: in which lines of its text, and how many values. Rows of lists are recognised by
// their ids, so that one in front of the others changes none of them. Pure.
import { count } from "./explain.js";

const isContainer = (value) => typeof value === "object" && value !== null;
const partsOf = (value) => (isContainer(value) ? Object.values(value) : []);
const idOf = (row) => row?.id ?? row?.node?.id;

/** How many lines it takes with an indentation: brackets stand in lines of their own, but where nothing is in them. */
function height(value) {
  const parts = partsOf(value);
  return parts.length ? parts.reduce((sum, part) => sum + height(part), 2) : 1;
}

/** How many values it has that have no parts. */
function size(value) {
  const parts = partsOf(value);
  return parts.length ? parts.reduce((sum, part) => sum + size(part), 0) : 1;
}

/**
 * @returns {{lines: number[], changed: number, removed: number}} the lines, from 1, of `JSON.stringify(after, null, 2)` that
 *   have a value that was not there, and how many values those are; how many values are not there any more
 */
export function changesBetween(before, after) {
  const found = { lines: [], changed: 0, removed: 0 };
  compare(before, after, 1, found);
  return found;
}

function compare(before, after, line, found) {
  const isSameKind = isContainer(before) && isContainer(after) && Array.isArray(before) === Array.isArray(after);
  if (!isSameKind) {
    if (before !== after) mark(after, line, found);
    return;
  }
  const { pairs, rest } = Array.isArray(after) ? rowPairs(before, after) : keyPairs(before, after);
  for (const value of rest) found.removed += size(value);
  // The bracket's line is before that of the first.
  let at = line + 1;
  for (const { old, value, isNew } of pairs) {
    if (isNew) mark(value, at, found);
    else compare(old, value, at, found);
    at += height(value);
  }
  if (!pairs.length && rest.length) found.lines.push(line);
}

function mark(value, line, found) {
  found.changed += size(value);
  for (let at = line; at < line + height(value); at++) found.lines.push(at);
}

function keyPairs(before, after) {
  const pairs = Object.entries(after).map(([key, value]) => ({ old: before[key], value, isNew: !(key in before) }));
  return { pairs, rest: Object.keys(before).flatMap((key) => (key in after ? [] : [before[key]])) };
}

/** The rows with the row that each was before: the one with its id, an equal one, or, where neither has an id, the next one. */
function rowPairs(before, after) {
  const left = new Map();
  const keyOf = (row) => idOf(row) ?? JSON.stringify(row);
  for (const row of before) left.set(keyOf(row), [...(left.get(keyOf(row)) ?? []), row]);
  const pairs = after.map((value) => {
    const same = left.get(keyOf(value));
    return same?.length ? { old: same.shift(), value, isNew: false } : { value, isNew: true };
  });
  const rest = [...left.values()].flat();
  for (const pair of pairs.filter(({ value, isNew }) => isNew && idOf(value) === undefined)) {
    const place = rest.findIndex((row) => idOf(row) === undefined);
    if (place >= 0) Object.assign(pair, { old: rest.splice(place, 1)[0], isNew: false });
  }
  return { pairs, rest };
}

/** The same in words. */
export function inWords({ changed, removed }) {
  const of = (number, done) => `${count(number, "value", "values")} ${done}`;
  if (changed && removed) return `${of(changed, "changed")}, ${removed} removed`;
  if (removed) return of(removed, "removed");
  return changed ? of(changed, "changed") : "nothing changed";
}
