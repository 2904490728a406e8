//! `performance` in the audit's JSON.

use serde::{Deserialize, Serialize};

/// A timed case beside what it is compared with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub kernel: String,
    pub tier: String,
    pub dtype: String,
    pub case: String,
    /// The case's first word, and its format: that in its name, or else the dtype.
    pub shape: String,
    pub format: String,
    pub us: f64,
    /// Taken before the kernel was last changed; the audit never says so, but who merges files may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub earlier: bool,
    pub gb_s: f64,
    pub tflop_s: f64,
    pub copy_percent: Option<f64>,
    /// `timestamps` or `wall clock`.
    pub clock: String,
    pub must: Option<Bound>,
    pub goal: Option<Bound>,
    pub peers: Vec<Peer>,
}

/// A target, as microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bound {
    pub us: f64,
    pub met: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    pub name: String,
    pub us: f64,
    /// Above 1: this crate is faster.
    pub ratio: f64,
}
