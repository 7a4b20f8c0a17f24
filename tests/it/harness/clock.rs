//! A clock of one's own for the real program, which can be set while it runs: `libfaketime`.

use std::{env, fs, path::PathBuf};

/// The clock: a file that says by how many seconds it is off.
pub(crate) struct Clock(PathBuf);

impl Clock {
    /// A clock that is off by so many seconds, as in `+3600`. The name is one for each clock of the tests.
    pub(crate) fn new(name: &str, offset: &str) -> Self {
        let clock = Self(env::temp_dir().join(format!("xp-clock-{}-{name}", std::process::id())));
        clock.set(offset);
        clock
    }

    /// Sets it.
    pub(crate) fn set(&self, offset: &str) {
        fs::write(&self.0, offset).expect("the temporary directory can be written");
    }

    /// What a process needs in its environment to go by this clock. The other clock, which never jumps, is
    /// left alone: no operator can set it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.to_str().expect("a path").to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Where the library is: where `./test` has found it, or where Debian puts it.
fn library() -> String {
    if let Ok(path) = env::var("XP_FAKETIME") {
        return path;
    }
    let folders = fs::read_dir("/usr/lib").expect("a Unix").filter_map(Result::ok);
    let found =
        folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let found = found.expect("libfaketime is installed (Debian: apt-get install libfaketime)");
    found.to_str().expect("a path").to_owned()
}
