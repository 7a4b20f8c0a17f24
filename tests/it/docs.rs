//! The pages of docs/ that are generated from code are what the code says. Not here: the schema's golden files
//! (`published`).

use std::{env, fs, path::Path};

/// The file holds this text, byte for byte. `UPDATE_GOLDEN=1` writes it.
fn assert_generated(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("the page can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let line = written.lines().zip(text.lines()).position(|(written, now)| written != now);
    assert!(
        written == text,
        "{file} differs from what the code says, first at line {:?}. Refresh it:\n\
         UPDATE_GOLDEN=1 cargo test -p xp --test it docs",
        line.map(|line| line + 1)
    );
}

#[test]
fn the_page_of_the_configuration_is_generated() {
    assert_generated("docs/configuration.md", &xp::config::print::markdown());
}
