//! Declaration and specialisations of `gemm_batched`.

use super::batched_few::{self, Few};
use super::plan::coop_groups;
use super::{Layout, batched_cases, batched_coop};
use crate::device::Caps;
use crate::kernel::{
    Access, Binding, Def, Defines, KernelSpec, Needs, Params, Tier, Variant, defines, params, tier, unit,
};
use crate::tensor::DType;

params! {
    /// See `wgsl/common/batched.wgsl`.
    pub(super) struct BatchedParams {
        m: u32, n: u32, k: u32, batches: u32, stride_a: u32, stride_w: u32, stride_bias: u32,
        flags: u32, activation: u32, scale: f32,
    }
}

/// Batches of products of two tensors.
pub static GEMM_BATCHED: KernelSpec = KernelSpec {
    name: "gemm_batched",
    family: "matmul",
    replaces: &["batched_gemm", "dense_gemm"],
    params: BatchedParams::FIELDS,
    bindings: &[
        Binding { name: "a", access: Access::Read },
        Binding { name: "w", access: Access::Read },
        Binding { name: "bias", access: Access::Read },
        Binding { name: "residual", access: Access::Read },
        Binding { name: "out", access: Access::ReadWrite },
    ],
    tiers: &[
        tier!(Base, "matmul/gemm_batched.wgsl", variants),
        tier!(Subgroup, "matmul/gemm_batched_subgroup.wgsl", batched_few::variants),
        tier!(Coop, "matmul/gemm_batched_coop.wgsl", batched_coop::variants),
    ],
    cases: batched_cases::cases,
};

/// Dtypes of all operands.
pub(super) const KINDS: &[DType] = &[DType::F32, DType::F16, DType::Bf16];

/// Columns of outputs of a workgroup of the Base tier.
const TILE_N: usize = 64;
/// Rows of outputs of a workgroup of the Base tier: the short tile is for few rows.
const TILES_M: [u32; 2] = [16, 64];

/// What a request asks for.
#[derive(Clone, Copy)]
pub(super) struct Shapes {
    /// Of a, w and out.
    pub dtypes: (DType, DType, DType),
    pub layout: Layout,
    pub batches: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// Of a and w.
    pub strides: (usize, usize),
}

impl Shapes {
    /// The specialisation for a tier, or why the tier does not serve.
    pub fn plan(&self, caps: &Caps, tier: Tier) -> Result<(Defines, Needs), String> {
        match tier {
            Tier::Coop => batched_coop::choose(caps, self).map(Variant::into),
            Tier::Subgroup => match Few::of(self) {
                Some(few) => Ok(few.variant().into()),
                None => Err("for up to 4 rows in f16 or bf16 that start on 16 bytes".to_string()),
            },
            _ => Ok(variant(Traits::of(self)).into()),
        }
    }

    /// Workgroups of a specialisation.
    pub fn groups(&self, tier: Tier, defines: &Defines) -> u64 {
        let tiles = match (tier, Few::of(self)) {
            (Tier::Coop, _) => coop_groups(defines, self.m, self.n),
            (Tier::Subgroup, Some(few)) => self.n.div_ceil(few.columns()) as u64,
            _ => (self.m.div_ceil(tile_m(self.m) as usize) * self.n.div_ceil(TILE_N)) as u64,
        };
        self.batches as u64 * tiles
    }
}

/// Rows of outputs of a workgroup of the Base tier.
fn tile_m(m: usize) -> u32 {
    if m <= TILES_M[0] as usize { TILES_M[0] } else { TILES_M[1] }
}

/// What a specialisation of the Base tier depends on.
#[derive(Clone, Copy)]
struct Traits {
    /// Of a, w and out.
    dtypes: (DType, DType, DType),
    layout: Layout,
    tile_m: u32,
    /// Rows of `K` elements start on fours.
    wide_k: bool,
    /// Rows of `N` elements do.
    wide_n: bool,
}

impl Traits {
    fn of(shapes: &Shapes) -> Traits {
        let Shapes { dtypes, layout, m, n, k, strides: (a_stride, w_stride), .. } = *shapes;
        let fours = |values: [usize; 2]| values.iter().all(|v| v.is_multiple_of(4));
        let nk = layout == Layout::Nk;
        Traits {
            dtypes,
            layout,
            tile_m: tile_m(m),
            wide_k: fours([k, a_stride]) && (!nk || fours([k, w_stride])) && k > 0,
            wide_n: fours([n, if nk { 0 } else { w_stride }]),
        }
    }
}

fn variant(traits: Traits) -> Variant {
    let Traits { dtypes: (a, w, out), layout, tile_m, wide_k, wide_n } = traits;
    let nk = layout == Layout::Nk;
    let wide_w = if nk { wide_k } else { wide_n };
    let f16 = [a, w, out].contains(&DType::F16);
    let size_a = tile_m * 32;
    let defines = defines![
        NEEDS_F16 = Def::Flag(f16),
        KN = Def::Flag(!nk),
        TILE_M = Def::Num(tile_m),
        REPEAT = Def::Num(tile_m / 16),
        LOADS_A = Def::Num(size_a.div_ceil(4 * 256)),
        SIZE_A = Def::Num(size_a),
        KIND0 = Def::Word(a.wgsl()),
        KIND1 = Def::Word(w.wgsl()),
        KIND2 = Def::Word(out.wgsl()),
        KIND3 = Def::Word(out.wgsl()),
        UNIT0 = Def::Type(unit(a, wide_k)),
        UNIT1 = Def::Type(unit(w, wide_w)),
        UNIT2 = Def::Type(unit(out, wide_n)),
        UNIT3 = Def::Type(unit(out, wide_n)),
        WIDE0 = Def::Flag(wide_k),
        WIDE1 = Def::Flag(wide_w),
        WIDE2 = Def::Flag(wide_n),
        WIDE3 = Def::Flag(wide_n),
    ];
    let workgroup_storage = (size_a + 2048) * 4;
    Variant { defines, needs: Needs { f16, threads: 256, workgroup_storage, ..Needs::default() } }
}

fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for &a in KINDS {
        for &w in KINDS {
            for &out in KINDS {
                for layout in [Layout::Nk, Layout::Kn] {
                    for tile_m in TILES_M {
                        for (wide_k, wide_n) in [(true, true), (true, false), (false, true), (false, false)] {
                            let dtypes = (a, w, out);
                            all.push(variant(Traits { dtypes, layout, tile_m, wide_k, wide_n }));
                        }
                    }
                }
            }
        }
    }
    all
}
