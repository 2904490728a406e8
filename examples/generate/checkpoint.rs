//! Memory-mapped safetensors, in one file or in shards. Nothing in a file is trusted: the header's length, the
//! tensors' ranges, dtypes and shapes are all checked before a byte is read.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use crate::error::{Error, Result};

/// The format's own limit on the length of a header.
const MAX_HEADER: u64 = 100_000_000;
/// JSON files of a model directory are a few megabytes at most.
const MAX_TEXT: u64 = 64 << 20;

/// The tensors of a model directory or of one safetensors file.
pub struct Checkpoint {
    shards: Vec<Shard>,
    /// Which shard holds a tensor; only for a directory with an index.
    index: Option<HashMap<String, usize>>,
    origin: PathBuf,
}

struct Shard {
    path: PathBuf,
    map: Mmap,
    /// Where the tensors' data starts in `map`.
    start: usize,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// Reads a whole text file of reasonable size.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::metadata(path).map_err(|e| Error::file(path, e))?.len();
    if bytes > MAX_TEXT {
        return Err(Error::file(path, format!("{bytes} bytes; at most {MAX_TEXT} are read")));
    }
    std::fs::read_to_string(path).map_err(|e| Error::file(path, e))
}

impl Checkpoint {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names, in `dir`.
    pub fn open_dir(dir: &Path) -> Result<Checkpoint> {
        let index_path = dir.join("model.safetensors.index.json");
        if !index_path.exists() {
            return Checkpoint::open_file(&dir.join("model.safetensors"));
        }
        let index: Index =
            serde_json::from_str(&read_text(&index_path)?).map_err(|e| Error::file(&index_path, e))?;
        let mut names: Vec<&String> = index.weight_map.values().collect();
        names.sort_unstable();
        names.dedup();
        let shards = names
            .iter()
            .map(|name| {
                // A name only: an index must not reach outside its directory.
                let mut parts = Path::new(name).components();
                match (parts.next(), parts.next()) {
                    (Some(Component::Normal(_)), None) => Shard::open(&dir.join(name)),
                    _ => Err(Error::file(&index_path, format!("{name:?} is not the name of a file"))),
                }
            })
            .collect::<Result<Vec<_>>>()?;
        let place = |shard: &String| names.binary_search(&shard).unwrap_or_default();
        let index = index.weight_map.iter().map(|(tensor, shard)| (tensor.clone(), place(shard))).collect();
        Ok(Checkpoint { shards, index: Some(index), origin: index_path })
    }

    /// Opens one safetensors file.
    pub fn open_file(path: &Path) -> Result<Checkpoint> {
        Ok(Checkpoint { shards: vec![Shard::open(path)?], index: None, origin: path.to_path_buf() })
    }

    /// The elements of a floating-point tensor (f32, f16 or bf16) that must have this shape.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (bytes, info) = self.tensor(name)?;
        self.expect_shape(name, info, shape)?;
        Ok(match info.dtype {
            Dtype::F32 => convert(bytes, f32::from_le_bytes),
            Dtype::F16 => convert(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => convert(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            other => return Err(self.wrong(name, format!("dtype {other:?}, needs F32, F16 or BF16"))),
        })
    }

    /// The elements of an i32 tensor, with its shape.
    pub fn integers(&self, name: &str) -> Result<(Vec<i32>, Vec<usize>)> {
        let (bytes, info) = self.tensor(name)?;
        match info.dtype {
            Dtype::I32 => Ok((convert(bytes, i32::from_le_bytes), info.shape.clone())),
            other => Err(self.wrong(name, format!("dtype {other:?}, needs I32"))),
        }
    }

    /// An error about one tensor.
    pub fn wrong(&self, name: &str, why: impl ToString) -> Error {
        Error::file(&self.origin, format!("tensor {name}: {}", why.to_string()))
    }

    fn expect_shape(&self, name: &str, info: &TensorInfo, shape: &[usize]) -> Result<()> {
        if info.shape == shape {
            return Ok(());
        }
        Err(self.wrong(name, format!("shape {:?}, the configuration needs {shape:?}", info.shape)))
    }

    fn tensor(&self, name: &str) -> Result<(&[u8], &TensorInfo)> {
        let shard = match &self.index {
            None => self.shards.first(),
            Some(index) => index.get(name).and_then(|&i| self.shards.get(i)),
        };
        let found = shard.and_then(|shard| Some((shard, shard.metadata.info(name)?)));
        let (shard, info) = found.ok_or_else(|| self.wrong(name, "missing"))?;
        let (from, to) = info.data_offsets;
        let bytes = shard.map.get(shard.start..).and_then(|data| data.get(from..to));
        Ok((bytes.ok_or_else(|| Error::file(&shard.path, format!("tensor {name}: outside the file")))?, info))
    }
}

impl Shard {
    fn open(path: &Path) -> Result<Shard> {
        let bad = |why: String| Error::file(path, why);
        let file = File::open(path).map_err(|e| Error::file(path, e))?;
        // SAFETY: the map is read-only and private to this process. As with every memory-mapped checkpoint, the
        // file must not be truncated by someone else while it is open.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::file(path, e))?;
        let Some((length, rest)) = map.split_first_chunk::<8>() else {
            return Err(bad(format!(
                "truncated: {} bytes, a safetensors file starts with 8 of length",
                map.len()
            )));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER {
            return Err(bad(format!("header of {length} bytes; safetensors allows {MAX_HEADER}")));
        }
        let length = length as usize;
        let Some((header, data)) = rest.split_at_checked(length) else {
            return Err(bad(format!("truncated: header of {length} bytes, {} are there", rest.len())));
        };
        let metadata: Metadata =
            serde_json::from_slice(header).map_err(|e| bad(format!("invalid header: {e}")))?;
        if metadata.data_len() != data.len() {
            let (want, have) = (metadata.data_len(), data.len());
            return Err(bad(format!("truncated or padded: {want} bytes of tensors announced, {have} there")));
        }
        Ok(Shard { path: path.to_path_buf(), start: 8 + length, metadata, map })
    }
}

/// Converts little-endian elements of `N` bytes, wherever they lie (the map does not align them).
fn convert<const N: usize, T: Send>(bytes: &[u8], element: impl Fn([u8; N]) -> T + Sync) -> Vec<T> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.par_iter().map(|&b| element(b)).collect()
}
