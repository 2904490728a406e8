//! Runs a compute shader on the CPU, from naga's form of it, as a device with subgroups of 32 and cooperative matrices of 16 × 16 would:
//! all threads of a workgroup go through the shader together, with a mask, so barriers are where they should be or an error.
//! Every access is checked: against the bounds of what it goes into, and in workgroup memory against what other threads
//! did since the last barrier.
//!
//! A value is `components × threads` words: all threads' first components, then all their second ones. Composites are flat.

mod exec;
pub mod faults;
mod memory;
mod ops;
mod warp;

use naga::{Module, valid::ModuleInfo};

pub use memory::Buffers;

/// Threads of a subgroup.
pub const LANES: usize = 32;

/// What a device is told of a launch, beside its buffers.
pub struct Launch<'a> {
    pub module: &'a Module,
    pub info: &'a ModuleInfo,
    pub groups: (u32, u32),
    pub threads: usize,
    pub params: &'a [u8],
}

/// Runs the entry point of a launch, one workgroup after the other, and leaves in the buffers what it stores.
///
/// # Errors
/// The access, barrier or expression that is wrong or not known here.
pub fn run(launch: &Launch<'_>, buffers: &mut Buffers) -> Result<(), String> {
    for y in 0..launch.groups.1 {
        for x in 0..launch.groups.0 {
            exec::workgroup(launch, buffers, (x, y)).map_err(|why| format!("workgroup ({x}, {y}): {why}"))?;
        }
    }
    Ok(())
}
