//! Embeds the playground: lists the files of `playground/dist` for `src/http/playground.rs`. Without the
//! folder the list is empty and everything but the page works.

use std::{env, fmt::Write as _, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=playground/dist/manifest.json");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let dist = Path::new(&root).join("playground/dist");
    let mut list = String::from("static ASSETS: &[Asset] = &[\n");
    if let Ok(manifest) = fs::read(dist.join("manifest.json")) {
        let manifest: serde_json::Value =
            serde_json::from_slice(&manifest).expect("playground/dist/manifest.json is JSON");
        for file in manifest["files"].as_array().expect("the manifest lists files") {
            let field = |name: &str| file[name].as_str().expect("each file has path, contentType and sha256");
            let content = dist.join(format!("{}.br", field("path")));
            println!("cargo::rerun-if-changed={}", content.display());
            let _ = writeln!(
                list,
                "    Asset {{ path: {:?}, content_type: {:?}, sha256: {:?}, brotli: include_bytes!(r\"{}\") }},",
                field("path"),
                field("contentType"),
                field("sha256"),
                content.display(),
            );
        }
    }
    list.push_str("];\n");
    fs::write(Path::new(&out).join("assets.rs"), list).expect("OUT_DIR can be written");
}
