//! Lists the shader blocks of `wgsl/common/` and `msl/common/` so that the composer can find them by name.

use std::{env, fs, path::Path};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let mut rows = Vec::new();
    for (language, extension) in [("wgsl", ".wgsl"), ("msl", ".metal")] {
        println!("cargo::rerun-if-changed={language}");
        let dir = Path::new(&root).join(language).join("common");
        for folder in ["", "weight/"] {
            let files = fs::read_dir(dir.join(folder)).expect("the blocks are part of the crate");
            let names = files.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            for name in names.filter(|name| name.ends_with(extension)) {
                let path = dir.join(folder).join(&name);
                rows.push(format!("(\"common/{folder}{name}\", include_str!({path:?})),\n"));
            }
        }
    }
    rows.sort();
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let table = format!("[\n{}]", rows.concat());
    fs::write(Path::new(&out).join("includes.rs"), table).expect("OUT_DIR is writable");
}
