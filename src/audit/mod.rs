//! The audit: for every kernel × tier × variant on an adapter, does it compose, validate, translate, load, run,
//! give right results, and how near the hardware's limit does it come. Tests and the `audit` example share it.

mod compare;
mod translate;

pub use compare::{Outcome, run_case};
pub use translate::{Reflection, parse, translate};
