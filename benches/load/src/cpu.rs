//! Processor time, read from `/proc`. Ticks are 10 ms on Linux, so a slice should last a second or more.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// What `/proc/<pid>/stat` says of one process.
struct Stat {
    name: String,
    parent: u32,
    /// User and system time of all its threads.
    own_ticks: u64,
    /// User and system time of its children that have ended.
    ended_children_ticks: u64,
}

impl Stat {
    fn read(process_id: u32) -> Result<Self> {
        let path = format!("/proc/{process_id}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        Self::parse(&text).with_context(|| format!("{path} is not understood"))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name may hold anything, so it is cut at the last bracket.
        let (start, rest) = text.rsplit_once(") ")?;
        let name = start.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            name,
            parent: fields.get(1)?.parse().ok()?,
            own_ticks: number(11)? + number(12)?,
            ended_children_ticks: number(13)? + number(14)?,
        })
    }
}

/// The processor time that a process has used so far.
pub(crate) fn of_process(process_id: u32) -> Result<Duration> {
    Ok(ticks(Stat::read(process_id)?.own_ticks))
}

/// The processor time of this process.
pub(crate) fn of_self() -> Result<Duration> {
    of_process(std::process::id())
}

/// The processor time of PostgreSQL: the postmaster, its children, and those that have ended.
pub(crate) fn of_postgres(postmaster: u32) -> Result<Duration> {
    let parent = Stat::read(postmaster)?;
    let mut sum = parent.own_ticks + parent.ended_children_ticks;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process_id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ended meanwhile is counted with the postmaster's ended children at the next look.
        if let Ok(stat) = Stat::read(process_id)
            && stat.parent == postmaster
        {
            sum += stat.own_ticks;
        }
    }
    Ok(ticks(sum))
}

/// The parent of a PostgreSQL backend, when it runs on this machine.
pub(crate) fn postmaster_of(backend: u32) -> Option<u32> {
    let stat = Stat::read(backend).ok()?;
    stat.name.starts_with("postgres").then_some(stat.parent)
}

/// The most memory that a process has held so far.
pub(crate) fn peak_memory_kib(process_id: u32) -> Result<u64> {
    memory_kib(process_id, "VmHWM:")
}

/// The memory that a process holds now.
pub(crate) fn resident_kib(process_id: u32) -> Result<u64> {
    memory_kib(process_id, "VmRSS:")
}

fn memory_kib(process_id: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("no {name} in the status of {process_id}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn ticks(count: u64) -> Duration {
    Duration::from_micros(count * 1_000_000 / rustix::param::clock_ticks_per_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_cut_after_the_name() {
        let stat = Stat::parse("7 (a) b) S 3 0 0 0 0 0 0 0 0 0 11 12 13 14 20 0").unwrap();
        assert_eq!((stat.name.as_str(), stat.parent), ("a) b", 3));
        assert_eq!((stat.own_ticks, stat.ended_children_ticks), (23, 27));
    }
}
