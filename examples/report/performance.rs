//! The tables of timings, written between marks of a document.

use std::collections::BTreeSet;

use serde_json::Value;
use wgmarlin::audit::significant;

#[path = "../audit/measured.rs"]
mod measured;

use super::{Failure, table, text};
use measured::{Bound, Measured};

const BEGIN: &str = "<!-- performance: ";
const END: &str = "<!-- /performance -->";

/// `document` with its tables made anew of an audit's JSON.
pub fn rewrite(audit: &Value, document: &str) -> Result<String, Failure> {
    let measured: Vec<Measured> = serde_json::from_value(audit["performance"].clone())?;
    let mut out = String::new();
    let mut rest = document;
    while let Some(at) = rest.find(BEGIN) {
        let (before, marked) = rest.split_at(at);
        let (mark, after) = marked.split_once('\n').ok_or("a mark without an end of line")?;
        let names = mark.trim_end().strip_prefix(BEGIN).and_then(|m| m.strip_suffix(" -->"));
        let names = names.ok_or_else(|| format!("not a mark: {mark}"))?;
        let end = after.find(END).ok_or_else(|| format!("{mark} without {END}"))?;
        let body = match names {
            "device" => device(audit)?,
            names => kernels(&names.split(' ').collect::<Vec<_>>(), &measured),
        };
        out += &format!("{before}{mark}\n{body}");
        rest = &after[end..];
    }
    Ok(out + rest)
}

/// Whose figures these are.
fn device(audit: &Value) -> Result<String, Failure> {
    let field = |path| text(audit, path);
    let mut out = format!(
        "Device: {} ({}), {}; {}, version {}. ",
        field("/adapter/name")?,
        field("/adapter/driver")?,
        field("/adapter/backend")?,
        field("/date")?,
        field("/version")?
    );
    if let Some(copy) = audit["copy_gb_s"].as_f64() {
        out += &format!("Copy: {} GB/s. ", significant(copy));
    }
    if let Some(note) = audit["note"].as_str() {
        out += note;
    }
    if audit["performance"].as_array().into_iter().flatten().any(|m| m["earlier"] == true) {
        out += " †: taken before the kernel was last changed.";
    }
    let (on, when) = (field("/peers/device")?, field("/peers/date")?);
    out = format!("{}\n\nPeers, on {on}, {when}:\n\n", out.trim_end());
    for (name, what) in audit["peers"]["sources"].as_object().into_iter().flatten() {
        out += &format!("- {name}: {}\n", what.as_str().unwrap_or_default());
    }
    Ok(out)
}

/// The best tier's time of every case of these kernels.
fn kernels(names: &[&str], measured: &[Measured]) -> String {
    let key = |m: &Measured| (m.kernel.clone(), m.dtype.clone(), m.case.clone());
    let slower = |m: &Measured| measured.iter().any(|other| key(other) == key(m) && other.us < m.us);
    let of =
        |name: &&str| measured.iter().filter(move |m| m.kernel == **name && !slower(m)).collect::<Vec<_>>();
    let chosen: Vec<&Measured> = names.iter().flat_map(of).collect();
    if chosen.is_empty() {
        return "Not measured yet.\n".into();
    }
    let peers: BTreeSet<&str> = chosen.iter().flat_map(|m| &m.peers).map(|p| &*p.name).collect();
    let several = |field: &dyn Fn(&Measured) -> String| chosen.iter().any(|m| field(m) != field(chosen[0]));
    let (many, dtypes) = (several(&|m| m.kernel.clone()), several(&|m| m.dtype.clone()));
    let mut header =
        vec!["kernel", "case", "dtype", "tier", "µs", "GB/s", "TFLOP/s", "of copy", "must, µs", "goal, µs"];
    header.extend(&peers);
    let row = |m: &&Measured| {
        let shown = |on: bool, text: &str| if on { text.to_string() } else { String::new() };
        let mut cells = vec![
            shown(many, &m.kernel),
            m.case.clone(),
            shown(dtypes, &m.dtype),
            m.tier.clone(),
            format!("{}{}", significant(m.us), if m.earlier { "†" } else { "" }),
            significant(m.gb_s),
            shown(m.tflop_s > 0.0, &significant(m.tflop_s)),
            m.copy_percent.map_or(String::new(), |p| format!("{p:.0} %")),
            bound(m.must.as_ref()),
            bound(m.goal.as_ref()),
        ];
        cells.extend(peers.iter().map(|name| {
            let peer = m.peers.iter().find(|p| p.name == *name);
            peer.map_or(String::new(), |p| format!("{} ({:.2}×)", significant(p.us), p.ratio))
        }));
        cells
    };
    table(&header, &chosen.iter().map(row).collect::<Vec<_>>())
}

fn bound(bound: Option<&Bound>) -> String {
    bound.map_or(String::new(), |b| format!("{}{}", significant(b.us), if b.met { "" } else { " (missed)" }))
}
