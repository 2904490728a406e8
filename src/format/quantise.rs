//! Dense f32 values to a [`PackedMatrix`].

use super::{Codec, Format, Group, PackedMatrix, Params, ScaleFormat, ScaleSearch, Scaling, packed};
use crate::error::{Error, Result};
use half::f16;
use rayon::prelude::*;

const OP: &str = "quantise";

pub(super) fn quantise(
    values: &[f32],
    n: usize,
    k: usize,
    format: Format,
    group: Group,
    search: ScaleSearch,
) -> Result<PackedMatrix> {
    let shape = packed::Shape::new(OP, format, n, k, group)?;
    if values.len() != shape.elements {
        return Err(Error::shape(OP, "values", values.len(), format!("n * k = {n} * {k} elements")));
    }
    let codec = format.codec();
    // A dense row is one group without parameters.
    let group_len = if format.is_quantised() { shape.group } else { k };
    let scaling = Scaling::new(codec.scales, values);
    let mut words = vec![0u32; shape.words];
    let rows: Vec<Result<Vec<Params>>> = words
        .par_chunks_mut(shape.row_words)
        .zip(values.par_chunks(k))
        .enumerate()
        .map_init(
            || vec![0u32; k],
            |codes, (row, (words, values))| {
                let params = quantise_row(codec, row, values, group_len, (search, scaling), codes)?;
                pack(codes, codec.bits, words);
                Ok(params)
            },
        )
        .collect();
    // In row order, so that the error reported does not depend on the scheduling.
    let rows = rows.into_iter().collect::<Result<Vec<_>>>()?;
    let params = || rows.iter().flatten();
    let halves = |wanted: bool, part: fn(&Params) -> f32| -> Vec<f16> {
        if wanted { params().map(|p| f16::from_f32(part(p))).collect() } else { Vec::new() }
    };
    let (bytes, tensor) = match codec.scales {
        ScaleFormat::E8m0 | ScaleFormat::E4m3 => {
            (params().map(|p| scaling.byte(p.scale)).collect(), scaling.tensor)
        }
        ScaleFormat::None | ScaleFormat::F16 => (Vec::new(), 1.0),
    };
    Ok(PackedMatrix {
        format,
        n,
        k,
        group: shape.group,
        row_words: shape.row_words,
        words,
        scales: halves(codec.scales == ScaleFormat::F16, |p| p.scale),
        zeros: halves(codec.zeros, |p| p.zero),
        scale_bytes: bytes,
        tensor_scales: if codec.scales == ScaleFormat::E4m3 { vec![tensor; n] } else { Vec::new() },
    })
}

/// Fills `codes` with one row's codes and returns the parameters of its groups.
fn quantise_row(
    codec: &Codec,
    row: usize,
    values: &[f32],
    group_len: usize,
    (search, scaling): (ScaleSearch, Scaling),
    codes: &mut [u32],
) -> Result<Vec<Params>> {
    if let Some(column) = values.iter().position(|v| !v.is_finite()) {
        let what = format!("values at row {row}, column {column}");
        return Err(Error::value(OP, what, values[column], "finite"));
    }
    let groups = values.chunks(group_len).zip(codes.chunks_mut(group_len)).enumerate();
    groups
        .map(|(index, (group, codes))| {
            let Some(params) = (codec.fit)(group, search, scaling) else {
                return Err(too_large(codec, row, index * group_len, group));
            };
            (codec.encode)(group, params, codes);
            Ok(params)
        })
        .collect()
}

fn too_large(codec: &Codec, row: usize, first_column: usize, group: &[f32]) -> Error {
    // Of equals the first: max_by takes the last.
    let largest = group.iter().enumerate().rev().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
    let (offset, value) = largest.unwrap_or((0, &f32::MAX));
    let what = format!("values at row {row}, column {}", first_column + offset);
    let want = match codec.scales {
        ScaleFormat::None => "small enough to stay finite",
        _ => "small enough for a finite scale",
    };
    Error::value(OP, what, value, format!("{want} in {}", codec.name))
}

/// Packs codes into words, least significant bits first. `words` starts as zeros.
fn pack(codes: &[u32], bits: usize, words: &mut [u32]) {
    if 32 % bits == 0 {
        for (word, codes) in words.iter_mut().zip(codes.chunks(32 / bits)) {
            *word = codes.iter().rev().fold(0, |word, &code| word.unbounded_shl(bits as u32) | code);
        }
        return;
    }
    // 32 codes of 3 bits are 96 bits.
    for (words, codes) in words.chunks_mut(bits).zip(codes.chunks(32)) {
        let block = codes.iter().rev().fold(0u128, |block, &code| block << bits | u128::from(code));
        for (i, word) in words.iter_mut().enumerate() {
            *word = (block >> (32 * i)) as u32;
        }
    }
}
