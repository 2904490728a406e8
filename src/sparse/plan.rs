//! Which kernel and tile serve a shape. Static tables: nothing is tuned inside a caller's call.

use super::spec::{
    GEMM_SPARSE, GEMV_SPARSE, GEMV_TILES, GemvTile, Traits, coop_variant, gemm_variant, gemv_variant,
    msl_gemm_variant, msl_gemv_variant, walk_variant, walks,
};
use super::tables::Tables;
use super::weight::SparseWeight;
use crate::device::Caps;
use crate::kernel::{Def, Defines, KernelSpec, Needs, Tier};
use crate::matmul::{MslTile, choose_coop, coop_groups};
use crate::tensor::DType;

/// Rows of activations up to which every weight is read once, by `gemv_sparse`.
pub(super) const MAX_GEMV_ROWS: usize = 8;

/// Workgroups below which fewer rows of weights a team are better than fewer fillings of tables.
const BUSY: usize = 400;

pub(super) fn kernel_for(m: usize) -> &'static KernelSpec {
    if m <= MAX_GEMV_ROWS { &GEMV_SPARSE } else { &GEMM_SPARSE }
}

/// What a specialisation depends on beside the weight.
pub(super) struct Request {
    pub spec: &'static KernelSpec,
    pub m: usize,
    pub a: DType,
    pub out: DType,
}

/// The specialisation for a tier, or why the tier does not serve.
pub(super) fn variant(
    caps: &Caps,
    tier: Tier,
    request: &Request,
    weight: &SparseWeight,
) -> Result<(Defines, Needs), String> {
    let Request { spec, m, a, out } = *request;
    let traits = Traits { pattern: weight.pattern(), format: weight.format(), dtypes: (a, out) };
    if tier == Tier::Coop {
        if a != DType::F16 {
            return Err("cooperative matrices take f16 activations".to_string());
        }
        let tile = choose_coop(caps, m, weight.n(), false)?;
        return Ok(coop_variant(tile, traits, caps.backend != wgpu::Backend::Metal).into());
    }
    if tier == Tier::Msl {
        return Ok(match (spec.name == GEMV_SPARSE.name, m) {
            (false, _) => msl_gemm_variant(traits, MslTile::choose(m, weight.n(), traits.wide())).into(),
            (true, 0..=MAX_GEMV_ROWS) => msl_gemv_variant(traits, m.next_power_of_two() as u32).into(),
            _ => return Err(format!("{} takes at most {MAX_GEMV_ROWS} rows", spec.name)),
        });
    }
    if tier == Tier::Spirv {
        let serves = m == 1 && caps.half_subnormals;
        let tables = serves.then(|| Tables::choose(weight, traits, caps.compute_units())).flatten();
        let tables =
            tables.ok_or("it takes one row of halves to halves, and many and long rows of 2:4 in 4 bits")?;
        return Ok(tables.variant(traits).into());
    }
    if spec.name != GEMV_SPARSE.name {
        return Ok(gemm_variant(traits).into());
    }
    if tier == Tier::Subgroup && m == 1 && walks(traits) && caps.subgroup_size >= 8 {
        let walk = walk_variant(traits, weight.packets(), weight.packet_scales());
        if walk.needs.workgroup_storage <= caps.max_workgroup_storage {
            return Ok(walk.into());
        }
    }
    let tile = gemv_tile(traits, m, weight.n())
        .ok_or_else(|| format!("{} takes at most {MAX_GEMV_ROWS} rows", spec.name))?;
    Ok(gemv_variant(tier, traits, tile, weight.packet_scales()).into())
}

/// The tile for `m` rows of activations that takes the most rows of weights and still fills the GPU.
fn gemv_tile(traits: Traits, m: usize, n: usize) -> Option<GemvTile> {
    let mut fitting =
        GEMV_TILES.into_iter().filter(|t| m <= t.rows as usize && m.next_power_of_two() == t.rows as usize);
    let busy = |t: &GemvTile| n.div_ceil(t.group_columns(traits) as usize) >= BUSY;
    fitting.clone().find(busy).or_else(|| fitting.next_back())
}

/// Workgroups for `m` rows of activations and `n` rows of one part of a weight.
pub(super) fn groups(caps: &Caps, defines: &Defines, m: usize, n: usize, packets: usize) -> u64 {
    let define = |name: &str| {
        defines.iter().find_map(|(key, value)| match value {
            Def::Num(v) if *key == name => Some(*v as usize),
            _ => None,
        })
    };
    if let (Some(threads), Some(_)) = (define("THREADS"), define("MOST_ROWS")) {
        return Tables::groups(threads, n, packets, caps.compute_units()) as u64;
    }
    match (define("COLUMNS"), define("THREADS"), define("LANES")) {
        (Some(columns), Some(threads), Some(lanes)) => n.div_ceil(columns * (threads / lanes)) as u64,
        (None, Some(_), None) if define("TILE_M").is_none() => coop_groups(defines, m, n),
        _ => {
            let [tile_m, tile_n] = ["TILE_M", "TILE_N"].map(|name| define(name).unwrap_or(64));
            m.div_ceil(tile_m) as u64 * n.div_ceil(tile_n) as u64
        }
    }
}
