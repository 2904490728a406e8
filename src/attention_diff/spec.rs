//! Declarations of `diff_queries` and `diff_combine`.

use super::cases;
use crate::kernel::{
    Access, Binding, Def, KernelSpec, Needs, Params, Tier, Variant, defines, params, tier, unit,
};
use crate::tensor::DType;

params! {
    pub(super) struct QueriesParams { count: u32, d4: u32 }
}

params! {
    pub(super) struct CombineParams {
        rows: u32,
        heads: u32,
        e4: u32,
        d: u32,
        step: u32,
        norm: u32,
        init: f32,
        eps: f32,
        factor: f32,
    }
}

pub static DIFF_QUERIES: KernelSpec = KernelSpec {
    name: "diff_queries",
    family: "attention_diff",
    replaces: &["diff_attention"],
    params: QueriesParams::FIELDS,
    bindings: &[
        Binding { name: "q", access: Access::Read },
        Binding { name: "out", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Base, "attention_diff/diff_queries.wgsl", || variants(Tier::Base))],
    cases: cases::queries_cases,
};

pub static DIFF_COMBINE: KernelSpec = KernelSpec {
    name: "diff_combine",
    family: "attention_diff",
    replaces: &["diff_attention"],
    params: CombineParams::FIELDS,
    bindings: &[
        Binding { name: "parts", access: Access::Read },
        Binding { name: "lambda_q1", access: Access::Read },
        Binding { name: "lambda_k1", access: Access::Read },
        Binding { name: "lambda_q2", access: Access::Read },
        Binding { name: "lambda_k2", access: Access::Read },
        Binding { name: "weight", access: Access::Read },
        Binding { name: "out", access: Access::ReadWrite },
    ],
    tiers: &[
        tier!(Base, "attention_diff/diff_combine.wgsl", || variants(Tier::Base)),
        tier!(Subgroup, "attention_diff/diff_combine.wgsl", || variants(Tier::Subgroup)),
    ],
    cases: cases::combine_cases,
};

/// A thread for each vec4 of the widest row.
pub(super) const THREADS: u32 = 64;
pub(super) const DTYPES: [DType; 2] = [DType::F32, DType::F16];

/// Of both kernels.
pub(super) fn variant(tier: Tier, dtype: DType) -> Variant {
    Variant {
        defines: defines![
            SUBGROUP = Def::Flag(tier == Tier::Subgroup),
            T = Def::Word(dtype.wgsl()),
            UNIT = Def::Type(unit(dtype, true)),
            THREADS = Def::Num(THREADS),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            workgroup_storage: THREADS * 4,
            threads: THREADS,
            ..Needs::default()
        },
    }
}

fn variants(tier: Tier) -> Vec<Variant> {
    DTYPES.map(|dtype| variant(tier, dtype)).to_vec()
}
