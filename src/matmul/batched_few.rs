//! Specialisations of `gemm_batched` for few rows of a: its Subgroup tier.

use super::Layout;
use super::batched_spec::{KINDS, Shapes};
use crate::kernel::{Def, Needs, Variant, defines, unit};
use crate::tensor::DType;

/// What a specialisation depends on; see `wgsl/matmul/gemm_batched_subgroup.wgsl`.
#[derive(Clone, Copy)]
pub(super) struct Few {
    /// Of a, w and out.
    dtypes: (DType, DType, DType),
    layout: Layout,
    /// M rounded up to one of [`ROWS`].
    rows: u32,
    /// Eights of columns of a workgroup in Kn.
    chunks: u32,
}

const ROWS: [u32; 3] = [1, 2, 4];
const CHUNKS: [u32; 2] = [4, 2];
/// Workgroups that give every one of some hundred cores two.
const BUSY: usize = 256;
/// Eights of a and of w that a thread takes at once.
const EIGHT: usize = 8;

impl Few {
    /// That which serves, if there is one.
    pub fn of(shapes: &Shapes) -> Option<Few> {
        let Shapes { dtypes, layout, batches, m, n, k, strides } = *shapes;
        let rows = ROWS.into_iter().find(|&rows| m <= rows as usize)?;
        let w_row = if layout == Layout::Nk { k } else { n };
        let wide = [k, w_row, strides.0, strides.1].iter().all(|v| v.is_multiple_of(EIGHT));
        if !wide || k == 0 || dtypes.0 == DType::F32 || dtypes.1 == DType::F32 {
            return None;
        }
        let few = |chunks| Few { dtypes, layout, rows, chunks };
        let all = CHUNKS.map(few);
        all.into_iter().find(|few| batches * n.div_ceil(few.columns()) >= BUSY).or(Some(all[1]))
    }

    /// Of a workgroup.
    pub fn columns(self) -> usize {
        if self.layout == Layout::Nk { self.threads() as usize } else { self.chunks as usize * EIGHT }
    }

    fn threads(self) -> u32 {
        if self.layout == Layout::Nk { 128 } else { 256 }
    }

    pub fn variant(self) -> Variant {
        let Few { dtypes: (a, w, out), layout, rows, chunks } = self;
        let threads = self.threads();
        let kn = layout == Layout::Kn;
        let defines = defines![
            NEEDS_F16 = Def::Flag(out == DType::F16),
            KN = Def::Flag(kn),
            ROWS = Def::Num(rows),
            CHUNKS = Def::Num(if kn { chunks } else { 1 }),
            THREADS = Def::Num(threads),
            SUMS = Def::Num(if out == DType::Bf16 { 2 } else { 1 }),
            KIND0 = Def::Word(a.wgsl()),
            KIND1 = Def::Word(w.wgsl()),
            KIND3 = Def::Word(out.wgsl()),
            UNIT0 = Def::Type("vec4<u32>"),
            UNIT1 = Def::Type("vec4<u32>"),
            UNIT2 = Def::Type(unit(out, false)),
            UNIT3 = Def::Type(unit(out, false)),
        ];
        let terms = if kn { 8 * (threads + chunks) } else { 9 * threads };
        let f16 = out == DType::F16;
        Variant { defines, needs: Needs { f16, threads, workgroup_storage: terms * 4, ..Needs::default() } }
    }
}

pub(super) fn variants() -> Vec<Variant> {
    let operands = KINDS.iter().filter(|d| **d != DType::F32);
    let mut all = Vec::new();
    for (&a, &w) in operands.clone().flat_map(|a| operands.clone().map(move |w| (a, w))) {
        for &out in KINDS {
            for rows in ROWS {
                all.push(Few { dtypes: (a, w, out), layout: Layout::Nk, rows, chunks: 1 }.variant());
                for chunks in CHUNKS {
                    all.push(Few { dtypes: (a, w, out), layout: Layout::Kn, rows, chunks }.variant());
                }
            }
        }
    }
    all
}
