//! Lists the shader blocks of `wgsl/common/` so that the composer can find them by name.

use std::{env, fs, path::Path};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let dir = Path::new(&root).join("wgsl/common");
    println!("cargo::rerun-if-changed=wgsl");
    let mut names = Vec::new();
    for folder in ["", "weight/"] {
        let files = fs::read_dir(dir.join(folder)).expect("wgsl/common is part of the crate");
        let files = files.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.extend(files.filter(|name| name.ends_with(".wgsl")).map(|name| format!("{folder}{name}")));
    }
    names.sort();
    let rows: String = names
        .iter()
        .map(|name| format!("(\"common/{name}\", include_str!({:?})),\n", dir.join(name)))
        .collect();
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("includes.rs"), format!("[\n{rows}]")).expect("OUT_DIR is writable");
}
