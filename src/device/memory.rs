//! Buffers: allocation, upload, readback.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Gpu;
use crate::error::{Error, Result};
use crate::tensor::{DType, Element, Storage, Tensor, elements};

/// One `write_buffer` stages its whole payload in host memory, so large uploads go in pieces of this size.
const UPLOAD_CHUNK: usize = 64 << 20;

/// What a [`Gpu`] keeps for its launches.
#[derive(Default)]
pub(super) struct Kept {
    /// See [`Gpu::scratch`].
    scratch: Option<Tensor>,
    /// See [`Gpu::joint`].
    joint: Option<Tensor>,
}

impl Gpu {
    /// A new tensor. Its contents are undefined until a kernel or [`Gpu::write`] fills it.
    ///
    /// # Errors
    /// [`Error::Limit`] over the adapter's buffer or binding limit, [`Error::OutOfMemory`] when the driver has
    /// no room; the `Gpu` stays usable after either.
    pub fn alloc(&self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let what = || format!("tensor {dtype:?} {shape:?}");
        let bytes = elements(shape).and_then(|n| n.checked_mul(dtype.size() as u64)).unwrap_or(u64::MAX);
        // An empty tensor still needs something to bind: one element of the widest type in a shader.
        let size = bytes.max(32).checked_next_multiple_of(16).unwrap_or(u64::MAX);
        let caps = self.caps();
        for (name, max) in
            [("max_buffer_size", caps.max_buffer), ("max_storage_buffer_binding_size", caps.max_binding)]
        {
            if size > max {
                return Err(Error::Limit { what: what(), name, need: size, max });
            }
        }
        self.check_lost()?;
        let scope = self.0.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.0.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        if pollster::block_on(scope.pop()).is_some() {
            return Err(Error::OutOfMemory { what: what() });
        }
        Ok(Tensor::new(Arc::new(Storage::new(self, buffer)), dtype, shape))
    }

    /// Memory for what lies between two launches of one request. All requests share it: launches of a device run in the order of
    /// their submission, each after what it depends on. It grows to the largest that was asked for; what it was before lives as long
    /// as recorded launches name it.
    pub(crate) fn scratch(&self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let words = (shape.iter().product::<usize>() * dtype.size()).div_ceil(4);
        let tensor = self.keep(&mut self.kept().scratch, words)?;
        Ok(Tensor::new(tensor.storage, dtype, shape))
    }

    /// Likewise memory where the workgroups of one launch leave words for each other. It begins as zeros, as all memory of WebGPU does,
    /// and each launch leaves as zeros what it counts in.
    pub(crate) fn joint(&self, words: usize) -> Result<Tensor> {
        self.keep(&mut self.kept().joint, words)
    }

    fn keep(&self, kept: &mut Option<Tensor>, words: usize) -> Result<Tensor> {
        let tensor = match kept.take().filter(|t| t.len() >= words) {
            Some(tensor) => tensor,
            None => self.alloc(DType::U32, &[words]).map_err(|error| match error {
                Error::OutOfMemory { .. } => Error::OutOfMemory { what: format!("scratch of {words} words") },
                other => other,
            })?,
        };
        *kept = Some(tensor.clone());
        Ok(tensor)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of GPU memory that the `Gpu` keeps for what lies between launches, or between workgroups of one. Where the `Spirv` tier
    /// serves, products of more than 32 rows with quantised weights take as much as their activations in f16, and decoding some 2 MiB at
    /// most; nothing else does.
    ///
    /// ```no_run
    /// # fn example(gpu: &wgmarlin::Gpu) {
    /// // After a long prompt:
    /// println!("{} bytes are given back", gpu.scratch_bytes());
    /// gpu.free_scratch();
    /// # }
    /// ```
    pub fn scratch_bytes(&self) -> u64 {
        let kept = self.kept();
        [&kept.scratch, &kept.joint].into_iter().flatten().map(Tensor::bytes).sum()
    }

    /// Gives that memory back once what has been submitted is done. What needs it later takes it anew.
    pub fn free_scratch(&self) {
        *self.kept() = Kept::default();
    }

    /// A new tensor holding `data`.
    ///
    /// # Errors
    /// As [`Gpu::alloc`], and [`Error::Shape`] if `data` is not as long as `shape` says.
    pub fn tensor<T: Element>(&self, shape: &[usize], data: &[T]) -> Result<Tensor> {
        let tensor = self.alloc(T::DTYPE, shape)?;
        check_write(&tensor, data)?;
        self.write_bytes(&tensor, bytemuck::cast_slice(data), [0; 4])?;
        Ok(tensor)
    }

    /// Overwrites a tensor, and nothing beside it. An odd number of halves takes a moment more, as copies are of whole words: the half
    /// that follows is read first.
    ///
    /// # Errors
    /// [`Error::Shape`] if dtype or length differ, or the buffer is not for copies; what [`Gpu::read`] can give.
    pub fn write<T: Element>(&self, tensor: &Tensor, data: &[T]) -> Result<()> {
        check_write(tensor, data)?;
        tensor.check_device("write", "tensor", self)?;
        tensor.check_usage("write", wgpu::BufferUsages::COPY_DST)?;
        let whole = tensor.bytes() / 4 * 4;
        let mut last = [0; 4];
        if whole < tensor.bytes() {
            last.copy_from_slice(&pollster::block_on(self.read_range(&tensor.word_at(whole), 4))?);
        }
        self.write_bytes(tensor, bytemuck::cast_slice(data), last)
    }

    /// `last` is what the word holds of which the tensor has a half only.
    fn write_bytes(&self, tensor: &Tensor, bytes: &[u8], mut last: [u8; 4]) -> Result<()> {
        for (i, chunk) in bytes.chunks(UPLOAD_CHUNK).enumerate() {
            let offset = tensor.offset() + (i * UPLOAD_CHUNK) as u64;
            let whole = chunk.len() / 4 * 4;
            self.0.queue.write_buffer(tensor.buffer(), offset, &chunk[..whole]);
            if whole < chunk.len() {
                last[..chunk.len() - whole].copy_from_slice(&chunk[whole..]);
                self.0.queue.write_buffer(tensor.buffer(), offset + whole as u64, &last);
            }
            if bytes.len() > UPLOAD_CHUNK {
                self.0.queue.submit([]);
                self.wait()?;
            }
        }
        Ok(())
    }

    /// Reads a tensor back, blocking.
    ///
    /// # Errors
    /// [`Error::Shape`] if `T` is not the tensor's dtype or the buffer is not for copies, [`Error::DeviceLost`].
    pub fn read<T: Element>(&self, tensor: &Tensor) -> Result<Vec<T>> {
        pollster::block_on(self.read_async(tensor))
    }

    /// As [`Gpu::read`]; completes when the device is polled.
    ///
    /// # Errors
    /// As [`Gpu::read`].
    pub async fn read_async<T: Element>(&self, tensor: &Tensor) -> Result<Vec<T>> {
        if tensor.dtype() != T::DTYPE {
            return Err(Error::shape("read", "element type", T::DTYPE, format!("{:?}", tensor.dtype())));
        }
        if tensor.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = self.read_range(tensor, tensor.bytes()).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// The tensor's bytes and what follows them in its buffer: the audit's guard zone.
    #[cfg(feature = "audit")]
    pub(crate) fn read_with_tail(&self, tensor: &Tensor) -> Result<Vec<u8>> {
        pollster::block_on(self.read_range(tensor, tensor.buffer().size() - tensor.offset()))
    }

    async fn read_range(&self, tensor: &Tensor, len: u64) -> Result<Vec<u8>> {
        tensor.check_device("read", "tensor", self)?;
        tensor.check_usage("read", wgpu::BufferUsages::COPY_SRC)?;
        let mut readback = Readback::new(self, len)?;
        let mut encoder = self.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        readback.copy(&mut encoder, tensor, len);
        self.0.queue.submit([encoder.finish()]);
        let mut bytes = readback.fetch(self).await?;
        bytes.truncate(len as usize);
        Ok(bytes)
    }
}

fn check_write<T: Element>(tensor: &Tensor, data: &[T]) -> Result<()> {
    if tensor.dtype() != T::DTYPE {
        return Err(Error::shape("write", "data", T::DTYPE, format!("{:?}", tensor.dtype())));
    }
    if tensor.len() != data.len() {
        return Err(Error::shape("write", "data length", data.len(), tensor.len().to_string()));
    }
    Ok(())
}

/// A staging buffer that is used again and again, for the few bytes that come back at each decode step.
pub struct Readback {
    staging: wgpu::Buffer,
    used: u64,
}

impl Readback {
    /// Room for `bytes` bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, bytes: u64) -> Result<Readback> {
        let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let staging = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: bytes.max(4).next_multiple_of(4),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        match pollster::block_on(scope.pop()) {
            Some(_) => Err(Error::OutOfMemory { what: format!("readback of {bytes} bytes") }),
            None => Ok(Readback { staging, used: 0 }),
        }
    }

    /// Records the copy of the first `bytes` bytes of `tensor`; at most the room given to [`Readback::new`].
    pub fn copy(&mut self, encoder: &mut wgpu::CommandEncoder, tensor: &Tensor, bytes: u64) {
        self.used = bytes.next_multiple_of(4).min(self.staging.size());
        encoder.copy_buffer_to_buffer(tensor.buffer(), tensor.offset(), &self.staging, 0, self.used);
    }

    /// Waits for the submitted copy and returns its bytes.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Wgpu`].
    pub async fn fetch(&mut self, gpu: &Gpu) -> Result<Vec<u8>> {
        let (send, receive) = futures::channel::oneshot::channel();
        let send = Mutex::new(Some(send));
        self.staging.map_async(wgpu::MapMode::Read, 0..self.used, move |result| {
            if let Some(send) = send.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // The receiver is gone only if the caller dropped the future.
                let _ = send.send(result);
            }
        });
        gpu.wait()?;
        match receive.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(Error::Wgpu(e.to_string())),
            Err(_) => return Err(Error::DeviceLost { reason: "the mapping was dropped".into() }),
        }
        let view = self.staging.get_mapped_range(0..self.used).map_err(|e| Error::Wgpu(e.to_string()))?;
        let bytes = view.to_vec();
        drop(view);
        self.staging.unmap();
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_one_buffer_that_grows() {
        let gpu = Gpu::new().expect("an adapter");
        let of = |shape: &[usize]| gpu.scratch(DType::F16, shape).expect("it is small");
        assert_eq!(gpu.scratch_bytes(), 0);
        let (first, smaller) = (of(&[8, 33]), of(&[8, 32]));
        assert_eq!(
            (first.dtype(), first.shape(), gpu.scratch_bytes()),
            (DType::F16, &[8, 33][..], 2 * 8 * 33)
        );
        assert_eq!(first.storage.id, smaller.storage.id);
        let larger = of(&[8, 34]);
        assert_ne!(first.storage.id, larger.storage.id);
        assert_eq!(gpu.scratch_bytes(), 2 * 8 * 34);
        // Words for workgroups to meet in are others, zeros at first.
        let joint = gpu.joint(100).expect("it is small");
        assert_eq!(gpu.read::<u32>(&joint).expect("reads"), [0; 100]);
        assert_eq!(gpu.joint(99).expect("it is small").storage.id, joint.storage.id);
        assert_ne!(gpu.joint(101).expect("it is small").storage.id, joint.storage.id);
        assert_eq!(gpu.scratch_bytes(), 2 * 8 * 34 + 4 * 101);
        gpu.free_scratch();
        assert_eq!(gpu.scratch_bytes(), 0);
        // What was handed out stays.
        gpu.write(&larger, &[half::f16::ONE; 8 * 34]).expect("it lives");
        assert_eq!(gpu.read::<half::f16>(&larger).expect("it lives")[8 * 34 - 1], half::f16::ONE);
    }

    #[test]
    fn an_odd_number_of_halves_leaves_the_next_one_alone() {
        let gpu = Gpu::new().expect("an adapter");
        let [one, two] = [1.0, 2.0].map(half::f16::from_f32);
        let tensor = gpu.tensor(&[2, 3], &[two; 6]).expect("it is small");
        gpu.write(&tensor.rows_view(&gpu, 0, 1).expect("it starts there"), &[one; 3]).expect("writes");
        assert_eq!(gpu.read::<half::f16>(&tensor).expect("reads"), [one, one, one, two, two, two]);
    }

    #[test]
    fn buffers_that_are_not_for_copies_are_refused() {
        let gpu = Gpu::new().expect("an adapter");
        let of = |size, usage| {
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            Tensor::from_buffer(&gpu, gpu.device().create_buffer(&descriptor), 0, DType::F16, &[3])
        };
        let refused = |result: Result<()>, what: &str| {
            let error = result.expect_err(what).to_string();
            assert!(error.contains(what), "{error}");
        };
        let storage = wgpu::BufferUsages::STORAGE;
        let tensor = of(8, storage).expect("for kernels it is enough");
        refused(gpu.write(&tensor, &[half::f16::ONE; 3]), "COPY_DST");
        refused(gpu.read::<half::f16>(&tensor).map(drop), "COPY_SRC");
        refused(of(8, wgpu::BufferUsages::COPY_SRC).map(drop), "STORAGE");
        refused(of(6, storage).map(drop), "inside the buffer");
    }
}
