//! One error type for the whole crate. Every wrong call names the kernel or operation, the argument,
//! what was given and what is needed; nothing panics and nothing is written to the GPU.

/// What can go wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No usable adapter, with advice for this operating system.
    #[error("no usable GPU adapter: {reason}. {advice}")]
    NoAdapter { reason: String, advice: &'static str },

    /// The adapter lacks a capability that the request needs.
    #[error("{what}: needs {need}, but {have}")]
    Unsupported { what: String, need: String, have: String },

    /// A tensor or a parameter has the wrong shape, dtype or size.
    #[error("{kernel}: {what} is {got}, needs {want}")]
    Shape { kernel: &'static str, what: String, got: String, want: String },

    /// A value is outside its domain (an index past the end, a non-finite scale, a zero divisor, ...).
    #[error("{kernel}: {what} = {got}, must be {want}")]
    Value { kernel: &'static str, what: String, got: String, want: String },

    /// An adapter limit is exceeded.
    #[error("{what}: {name} is limited to {max} on this adapter, {need} needed")]
    Limit { what: String, name: &'static str, need: u64, max: u64 },

    /// A tensor belongs to another device.
    #[error("{kernel}: {what} lives on another device")]
    ForeignTensor { kernel: &'static str, what: String },

    /// A [`KvCache`](crate::kv::KvCache) has too few free blocks for a step; nothing has changed.
    #[error("KvCache: {need} free blocks are needed, there are {free}")]
    CacheFull { need: usize, free: usize },

    /// A shader did not compose, validate or compile.
    #[error("{kernel}: shader does not compile\n{log}")]
    Compile { kernel: String, log: String },

    /// The driver could not provide the memory. The `Gpu` stays usable.
    #[error("out of GPU memory: {what}")]
    OutOfMemory { what: String },

    /// The device is gone (driver reset, unplugged, destroyed); open a new [`Gpu`](crate::Gpu).
    #[error("GPU device lost: {reason}")]
    DeviceLost { reason: String },

    /// wgpu reported a validation or internal error.
    #[error("wgpu: {0}")]
    Wgpu(String),
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn shape(
        kernel: &'static str,
        what: impl Into<String>,
        got: impl std::fmt::Debug,
        want: impl Into<String>,
    ) -> Self {
        Error::Shape { kernel, what: what.into(), got: format!("{got:?}"), want: want.into() }
    }

    pub(crate) fn value(
        kernel: &'static str,
        what: impl Into<String>,
        got: impl std::fmt::Debug,
        want: impl Into<String>,
    ) -> Self {
        Error::Value { kernel, what: what.into(), got: format!("{got:?}"), want: want.into() }
    }
}
