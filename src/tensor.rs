//! A tensor: a range of a GPU buffer with a dtype and a row-major shape.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::device::Gpu;
use crate::error::{Error, Result};

/// Element type of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DType {
    F32,
    F16,
    /// The upper half of an f32. WGSL has no such type: shaders see words of two elements.
    Bf16,
    U32,
    I32,
}

impl DType {
    /// Bytes of an element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 | DType::I32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// The name in audit rows, and but for bf16 the WGSL type.
    pub const fn wgsl(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::U32 => "u32",
            DType::I32 => "i32",
        }
    }
}

/// A host type that has a [`DType`].
pub trait Element: bytemuck::Pod {
    const DTYPE: DType;
}
impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for half::f16 {
    const DTYPE: DType = DType::F16;
}
impl Element for half::bf16 {
    const DTYPE: DType = DType::Bf16;
}
impl Element for u32 {
    const DTYPE: DType = DType::U32;
}
impl Element for i32 {
    const DTYPE: DType = DType::I32;
}

/// The buffer behind one or more tensors. Dropping the last tensor drops the bind groups that name it.
pub(crate) struct Storage {
    pub buffer: wgpu::Buffer,
    pub id: u64,
    /// Set once a cached bind group names this buffer.
    pub bound: AtomicBool,
    gpu: std::sync::Weak<crate::device::Inner>,
    gpu_id: u64,
}

impl Storage {
    pub fn new(gpu: &Gpu, buffer: wgpu::Buffer) -> Storage {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Storage { buffer, id, bound: AtomicBool::new(false), gpu: Arc::downgrade(&gpu.0), gpu_id: gpu.0.id }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if self.bound.load(Ordering::Relaxed)
            && let Some(gpu) = self.gpu.upgrade()
        {
            gpu.pipelines.forget_buffer(self.id);
        }
    }
}

/// A row-major tensor on the GPU. Cheap to clone: clones and views share the buffer.
#[derive(Clone)]
pub struct Tensor {
    pub(crate) storage: Arc<Storage>,
    offset: u64,
    dtype: DType,
    shape: Vec<usize>,
}

impl Tensor {
    pub(crate) fn new(storage: Arc<Storage>, dtype: DType, shape: &[usize]) -> Tensor {
        Tensor { storage, offset: 0, dtype, shape: shape.to_vec() }
    }

    /// Wraps a buffer that the caller owns (usage `STORAGE`; also `COPY_SRC` to read it back and `COPY_DST` to write it), from byte
    /// `offset`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the buffer is too short, counted in whole words, or is not for storage, or the offset is not aligned.
    pub fn from_buffer(
        gpu: &Gpu,
        buffer: wgpu::Buffer,
        offset: u64,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Tensor> {
        let whole = Tensor::new(Arc::new(Storage::new(gpu, buffer)), dtype, shape);
        whole.check_usage("from_buffer", wgpu::BufferUsages::STORAGE)?;
        whole.at(gpu, offset, shape)
    }

    /// The same range of another buffer.
    pub(crate) fn within(&self, storage: Arc<Storage>) -> Tensor {
        Tensor { storage, ..self.clone() }
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn bytes(&self) -> u64 {
        (self.len() * self.dtype.size()) as u64
    }
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.storage.buffer
    }
    /// Byte offset in the buffer.
    pub fn offset(&self) -> u64 {
        self.offset
    }
    /// The last dimension; 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
    /// The product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, head)| head.iter().product())
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if elements(shape) != Some(self.len() as u64) {
            return Err(Error::shape("reshape", "shape", shape, format!("{} elements", self.len())));
        }
        Ok(Tensor { shape: shape.to_vec(), ..self.clone() })
    }

    /// Rows `start..start + count` of the first dimension.
    ///
    /// # Errors
    /// [`Error::Shape`] past the end, or if the first row does not start at a multiple of
    /// [`Caps::offset_alignment`](crate::Caps).
    pub fn rows_view(&self, gpu: &Gpu, start: usize, count: usize) -> Result<Tensor> {
        let Some((&first, rest)) = self.shape.split_first() else {
            return Err(Error::shape("rows_view", "tensor", &self.shape, "at least one dimension"));
        };
        if start.checked_add(count).is_none_or(|end| end > first) {
            let got = format!("{count} from {start} on");
            return Err(Error::shape("rows_view", "rows", got, format!("within 0..{first}")));
        }
        let row = rest.iter().product::<usize>() * self.dtype.size();
        let shape: Vec<usize> = std::iter::once(count).chain(rest.iter().copied()).collect();
        self.at(gpu, self.offset + (start * row) as u64, &shape)
    }

    fn at(&self, gpu: &Gpu, offset: u64, shape: &[usize]) -> Result<Tensor> {
        let align = gpu.caps().offset_alignment;
        if !offset.is_multiple_of(align) {
            return Err(Error::shape("view", "byte offset", offset, format!("a multiple of {align}")));
        }
        // Copies and bindings are of whole words.
        let bytes = elements(shape).and_then(|n| n.checked_mul(self.dtype.size() as u64));
        let words = bytes.and_then(|bytes| bytes.checked_next_multiple_of(4));
        let end = words.and_then(|bytes| offset.checked_add(bytes)).unwrap_or(u64::MAX);
        if end > self.storage.buffer.size() {
            return Err(Error::shape("view", "end", end, "inside the buffer"));
        }
        Ok(Tensor { offset, shape: shape.to_vec(), ..self.clone() })
    }

    /// The word of the buffer that starts at a byte of the tensor.
    pub(crate) fn word_at(&self, byte: u64) -> Tensor {
        Tensor { offset: self.offset + byte, dtype: DType::U32, shape: vec![1], ..self.clone() }
    }

    pub(crate) fn check_usage(&self, op: &'static str, usage: wgpu::BufferUsages) -> Result<()> {
        let has = self.storage.buffer.usage();
        if has.contains(usage) {
            return Ok(());
        }
        Err(Error::shape(op, "buffer's usage", has, format!("{usage:?} too")))
    }

    pub(crate) fn is_of(&self, gpu: &Gpu) -> bool {
        self.storage.gpu_id == gpu.0.id
    }

    pub(crate) fn check_device(&self, kernel: &'static str, what: &str, gpu: &Gpu) -> Result<()> {
        if self.is_of(gpu) {
            return Ok(());
        }
        Err(Error::ForeignTensor { kernel, what: what.to_string() })
    }

    /// Checks dtype and shape; every `record` function calls this for every argument.
    pub(crate) fn expect(
        &self,
        kernel: &'static str,
        what: &str,
        dtypes: &[DType],
        shape: &[usize],
    ) -> Result<()> {
        if !dtypes.contains(&self.dtype) {
            return Err(Error::shape(kernel, format!("{what}'s dtype"), self.dtype, format!("{dtypes:?}")));
        }
        if self.shape != shape {
            return Err(Error::shape(kernel, what, &self.shape, format!("{shape:?}")));
        }
        Ok(())
    }

    /// Whether the two share any byte.
    pub(crate) fn overlaps(&self, other: &Tensor) -> bool {
        self.storage.id == other.storage.id
            && self.offset < other.offset + other.bytes()
            && other.offset < self.offset + self.bytes()
    }
}

/// As many elements as a shape has, if they can be counted.
pub(crate) fn elements(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({:?} {:?})", self.dtype, self.shape)
    }
}
