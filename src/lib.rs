//! LLM-inference GPU kernels in WGSL for any GPU that [`wgpu`] reaches through Vulkan, Metal or DX12.
//!
//! The crate takes the caller's device, queue and compute pass, or opens an adapter itself. A kernel is a request struct
//! and a `record` function: embeddings ([`embed`]), elementwise operations ([`elementwise`]), RMS normalisation
//! ([`norm`]), rotary embedding ([`rope`]), products with dense, quantised and sparse weights ([`matmul`], [`dequant`],
//! [`sparse`]), attention ([`attention`]), KV caches in blocks ([`kv`]), softmax ([`softmax`]) and the choice of a token
//! ([`argmax`], [`sample`], and [`tree`] for trees of drafts).
//!
//! * [`Gpu`] is a device with its queue, its capabilities ([`Caps`]) and its caches; [`Tensor`] is a range of a buffer
//!   with dtype and shape; [`matmul::Weight`] is a matrix in one of the number formats of [`mod@format`].
//! * A [`Recorder`] puts kernels into a compute pass. Recording checks every argument, picks the best [`Tier`] of the
//!   kernel that the adapter can run, and neither submits nor waits. It allocates no GPU memory but what
//!   [`Gpu::scratch_bytes`] counts, which only the `Spirv` tier needs.
//! * Pipelines are compiled at first use; [`Gpu::warm_up`] compiles what a piece of recording code needs beforehand.
//! * Wrong calls, missing capabilities, exhausted memory and lost devices are an [`Error`]; nothing panics.
//!
//! A step of decoding in the caller's own pass: normalise, multiply by a 4-bit matrix, take the most probable token.
//!
//! ```no_run
//! use wgmarlin::argmax::{self, Argmax};
//! use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
//! use wgmarlin::matmul::{self, Linear, Weight};
//! use wgmarlin::norm::{self, RmsNorm};
//! use wgmarlin::{DType, Gpu, Recorder};
//!
//! let gpu = Gpu::new()?;
//! let (vocab, width) = (1000, 256);
//! let values = vec![0.5; vocab * width];
//! let packed =
//!     PackedMatrix::quantise(&values, vocab, width, Format::Fp4, Group::Size(32), ScaleSearch::Mse)?;
//! let head = Weight::upload(&gpu, &packed)?;
//! let x = gpu.tensor(&[1, width], &vec![1.0f32; width])?;
//! let gain = gpu.tensor(&[width], &vec![1.0f32; width])?;
//! let normed = gpu.alloc(DType::F32, &[1, width])?;
//! let logits = gpu.alloc(DType::F32, &[1, vocab])?;
//! let token = gpu.alloc(DType::U32, &[1])?;
//!
//! let mut encoder = gpu.device().create_command_encoder(&Default::default());
//! {
//!     let mut pass = encoder.begin_compute_pass(&Default::default());
//!     let r = &mut Recorder::new(&gpu, &mut pass);
//!     norm::record(r, &RmsNorm::new(&x, &gain, &normed, 1e-5))?;
//!     matmul::record(r, &Linear::new(&normed, &head, &logits))?;
//!     argmax::record(r, &Argmax { logits: &logits, index: &token })?;
//! }
//! gpu.queue().submit([encoder.finish()]);
//! println!("{:?}", gpu.read::<u32>(&token)?);
//! # Ok::<(), wgmarlin::Error>(())
//! ```
//!
//! # Features
//! * `audit` (default): the `audit` module, which tests, benches and the audit program share; it brings naga's MSL and HLSL.
//! * `static-dxc`: links Microsoft's shader compiler on Windows, which f16 and subgroups on DX12 need.
//!
//! # Environment
//! [`Gpu::new`] reads `WGMARLIN_ADAPTER` (part of the adapter's name), `WGMARLIN_DISABLE` (any of `f16`, `subgroup`,
//! `coop`, `spirv`, `msl`, separated by commas), `WGMARLIN_TIER` (the highest tier to use) and `WGPU_BACKEND`.
//!
//! The repository's `docs/` explain the architecture, the formats and how a kernel is added.

pub mod argmax;
pub mod attention;
pub mod attention_diff;
#[cfg(feature = "audit")]
pub mod audit;
pub mod dequant;
pub mod device;
pub mod elementwise;
pub mod embed;
mod error;
pub mod format;
pub mod kernel;
pub mod kv;
pub mod matmul;
pub mod norm;
pub mod quantize;
pub mod rope;
pub mod sample;
pub mod softmax;
pub mod sparse;
mod tensor;
pub mod tree;

pub use device::{Capability, Caps, Gpu, GpuBuilder, Readback};
pub use error::{Error, Result};
pub use kernel::{CATALOGUE, KernelSpec, Recorder, Tier};
pub use tensor::{DType, Element, Tensor};
