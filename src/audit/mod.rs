//! The audit: for every kernel × tier × variant on an adapter, does it compose, validate, translate, load, run,
//! give right results, and how near the hardware's limit does it come. Tests, benches and the `audit` example share
//! it.
//!
//! | stage | what it proves |
//! |---|---|
//! | compose | every variant's source is assembled |
//! | validate | naga accepts it; parameters, bindings, threads and workgroup memory are what the host declares |
//! | translate | naga writes it as SPIR-V, MSL and HLSL |
//! | load | the driver makes a pipeline of every specialisation that the cases use |
//! | run | the launches are accepted and complete |
//! | correct | every output equals the reference within its tolerance, and nothing is written behind it |
//! | perf | time, bandwidth, arithmetic rate, and share of the adapter's measured copy bandwidth |

mod bench;
mod by_hand;
mod compare;
mod cover;
mod inventory;
mod msl_text;
#[cfg(test)]
mod planned_tests;
mod report;
mod rows;
mod stages;
mod supervise;
#[cfg(test)]
mod tests;
mod translate;

pub use crate::kernel::shaders_from;
pub use bench::{Timing, copy_bandwidth, measure, measure_case};
pub use by_hand::{MslText, as_apple, as_nvidia, run_case_by_hand};
pub use compare::{Outcome, run_case};
pub use inventory::{Entry, INVENTORY, Need, Service, UpstreamFile, inventory};
pub use msl_text::reflect_msl;
pub use report::{Perf, inventory_table, significant, table};
pub use rows::{Cases, Row, Rows, State};
pub use stages::{
    Coverage, Finished, Item, Message, Options, Part, Stage, Step, Verdict, audit_items, items, static_stages,
};
pub use supervise::{Ended, supervise};
pub use translate::{Parsed, Reflection, ShaderField, disagreements, parse, translate};
