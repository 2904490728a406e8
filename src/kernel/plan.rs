//! What planners of the memory-bound kernels share.

use crate::error::{Error, Result};
use crate::tensor::DType;

/// Elements that a kernel can index: a flat 32-bit index, with room for the last row of a folded grid.
const MAX_INDEX: u64 = 1 << 31;

/// `n` as a shader's 32-bit count or index.
pub(crate) fn index32(kernel: &'static str, what: &str, n: usize) -> Result<u32> {
    let too_many = || Error::Limit {
        what: format!("{kernel}: {what}"),
        name: "elements behind a 32-bit index",
        need: n as u64,
        max: MAX_INDEX,
    };
    u32::try_from(n).ok().filter(|&n| u64::from(n) <= MAX_INDEX).ok_or_else(too_many)
}

/// How a shader names four neighbouring elements.
fn vec4(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "vec4<f32>",
        DType::F16 => "vec4<f16>",
        DType::Bf16 => "vec2<u32>",
        DType::U32 => "vec4<u32>",
        DType::I32 => "vec4<i32>",
    }
}

/// How a shader names a unit of loading: four neighbours, or one element (of bf16 two, a word).
pub(crate) fn unit(dtype: DType, wide: bool) -> &'static str {
    match dtype {
        _ if wide => vec4(dtype),
        DType::Bf16 => "u32",
        _ => dtype.wgsl(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn indices_past_the_limit_are_refused() {
        assert_eq!(super::index32("k", "x", 1 << 31).ok(), Some(1 << 31));
        for n in [(1 << 31) + 1, 1 << 32, usize::MAX] {
            let error = super::index32("k", "x", n).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains("k: x") && error.contains("2147483648"), "{error}");
        }
    }
}
