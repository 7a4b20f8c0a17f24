//! How often documents are asked for, as files that each process writes and `xp documents usage` adds up. Counts go on
//! over restarts. Not here: the metrics, which know no document by its name.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// How often one document was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Requests.
    pub requests: u64,
    /// When last, in seconds of Unix time; 0: never.
    pub last_used_seconds: i64,
}

/// Usage by id.
pub type Usages = BTreeMap<String, Usage>;

/// Adds up these files. One that is not there counts nothing.
pub fn read(files: &[PathBuf]) -> io::Result<Usages> {
    let mut sum = Usages::new();
    for file in files {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        for (id, usage) in serde_json::from_str::<Usages>(&text)? {
            add(&mut sum, id, usage);
        }
    }
    Ok(sum)
}

/// Adds what was used since the last time to the file. It is only taken once the file could be read.
pub(super) fn write(file: &Path, used: impl Iterator<Item = (String, Usage)>) -> io::Result<()> {
    let mut sum = read(&[file.to_owned()])?;
    for (id, usage) in used {
        add(&mut sum, id, usage);
    }
    replace(file, &serde_json::to_string_pretty(&sum)?)
}

/// Puts a file in the place of another at once: who reads it sees the old one or the new one.
pub fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(format!(".{}", name.to_string_lossy()));
    let mut written = fs::File::create(&new)?;
    written.write_all(text.as_bytes())?;
    // Otherwise a loss of power may leave an empty file under the old name.
    written.sync_all()?;
    fs::rename(new, file)
}

fn add(sum: &mut Usages, id: String, usage: Usage) {
    let entry = sum.entry(id).or_default();
    entry.requests += usage.requests;
    entry.last_used_seconds = entry.last_used_seconds.max(usage.last_used_seconds);
}
