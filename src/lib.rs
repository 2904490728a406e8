//! wgmarlin
pub mod argmax;
pub mod attention;
#[cfg(feature = "audit")]
pub mod audit;
pub mod dequant;
pub mod device;
pub mod elementwise;
pub mod embed;
mod error;
pub mod format;
pub mod kernel;
pub mod matmul;
pub mod norm;
pub mod rope;
pub mod sample;
pub mod softmax;
mod tensor;

pub use device::{Capability, Caps, Gpu, GpuBuilder, Readback};
pub use error::{Error, Result};
pub use kernel::{CATALOGUE, KernelSpec, Recorder, Tier};
pub use tensor::{DType, Element, Tensor};
