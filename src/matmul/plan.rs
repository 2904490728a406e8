//! The specialisation and the grid that serve a request.

use super::arrange;
use super::fused_spec::{fuse, has};
use super::gemv_few::{GemvFew, few_variant};
use super::gemv_fragments::{GemvFragments, Products, TwoScales, gemv_fragment_variant};
use super::gemv_tiles::choose_gemv;
use super::msl::{MslTile, msl_variant, wide_tiles};
use super::spec::{
    book_bytes, coop_variant, gains_by_products, gemm_variant, gemv_variant, packet, takes_pairs,
};
use super::tiles::{MAX_GEMV_ROWS, choose_coop, choose_fragments};
use super::weight::Weight;
use crate::device::Caps;
use crate::format::Format;
use crate::kernel::{Def, Defines, KernelSpec, Needs, Tier, set_flag};
use crate::tensor::DType;

/// What a specialisation depends on beside the weight.
pub(super) struct Request {
    pub spec: &'static KernelSpec,
    pub m: usize,
    pub n: usize,
    pub a: DType,
    pub out: DType,
    pub pair: bool,
}

/// The properties of a weight that a specialisation depends on.
#[derive(Clone, Copy)]
pub(super) struct Traits {
    pub format: Format,
    pub rows: Rows,
    /// A packet of codes spans two groups.
    pub split_packet: bool,
    /// See [`Weight::small_scales`].
    pub small_scales: bool,
}

/// How rows of activations are loaded; see `wgsl/common/rows.wgsl`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// K is a multiple of 64, of every packet and step, and rows of w are not padded.
    Exact,
    /// K is a multiple of 8: rows start on 16-byte boundaries.
    Padded,
    Ragged,
}

impl Rows {
    pub const ALL: [Rows; 3] = [Rows::Exact, Rows::Padded, Rows::Ragged];

    pub fn name(self) -> &'static str {
        match self {
            Rows::Exact => "exact",
            Rows::Padded => "padded",
            Rows::Ragged => "ragged",
        }
    }

    pub fn of(weight: &Weight) -> Rows {
        // The padding of 2-bit rows may hold whole packets.
        let full = weight.packets() * packet(weight.format()) as usize == weight.k();
        match weight.k() {
            k if full && k.is_multiple_of(64) => Rows::Exact,
            k if k.is_multiple_of(8) => Rows::Padded,
            _ => Rows::Ragged,
        }
    }
}

/// The specialisation for a tier, or why the tier does not serve.
pub(super) fn variant(
    caps: &Caps,
    tier: Tier,
    request: &Request,
    weight: &Weight,
) -> Result<(Defines, Needs), String> {
    let traits = Traits {
        format: weight.format(),
        rows: Rows::of(weight),
        split_packet: weight.split_packet(),
        small_scales: tier == Tier::Spirv && weight.small_scales(),
    };
    let Request { spec, m, n, a, out, pair } = *request;
    if spec.name.ends_with("gemv") {
        if m > MAX_GEMV_ROWS {
            return Err(format!("{} takes at most {MAX_GEMV_ROWS} rows", spec.name));
        }
        if tier == Tier::Spirv && m > 1 {
            return Ok(fuse(few_variant(request, traits, weight)?, spec).into());
        }
        if tier == Tier::Spirv {
            if !caps.subgroup_barrier {
                return Err("no barrier of a subgroup".to_string());
            }
            let tile = fragments_for(caps, request, &traits, weight)?;
            return Ok(fuse(gemv_fragment_variant(traits, (a, out), tile, pair), spec).into());
        }
        let halves = caps.half_subnormals && !has(spec, "gamma") && takes_pairs((a, out), traits.rows, pair);
        let tile = choose_gemv(tier, m, n, weight.packets(), weight.format(), halves);
        if tier == Tier::Subgroup && caps.subgroup_size < 8 {
            return Err(format!("subgroups of {} lanes; 8 are the least", caps.subgroup_size));
        }
        let mut variant = gemv_variant(tier, traits, (a, out), tile, pair);
        if gains_by_products(tier, traits.format) {
            set_flag(&mut variant.defines, "MULTIPLIES", MULTIPLY_FAST.contains(&caps.vendor));
        }
        return Ok(fuse(variant, spec).into());
    }
    if tier == Tier::Msl {
        let tile = MslTile::choose(m, n, wide_tiles(traits.format, a));
        return Ok(fuse(msl_variant(tile, traits, (a, out), pair), spec).into());
    }
    if !matches!(tier, Tier::Coop | Tier::Spirv) {
        return Ok(fuse(gemm_variant(traits, (a, out), pair), spec).into());
    }
    if a == DType::F32 {
        return Err("cooperative matrices take f16 or bf16 activations".to_string());
    }
    let tile = match tier {
        Tier::Spirv if !traits.format.is_quantised() => return Err("dense weights".to_string()),
        Tier::Spirv if traits.rows == Rows::Ragged => {
            return Err("rows of a number of elements that 8 does not divide".to_string());
        }
        Tier::Spirv => {
            choose_fragments(m, n, caps.max_workgroup_storage.saturating_sub(book_bytes(traits.format)))
        }
        _ => choose_coop(caps, m, n, traits.format.is_quantised())?,
    };
    let step = tile.step(&tile.walk(packet(traits.format), traits.split_packet));
    let whole = weight.k().is_multiple_of(step as usize);
    let rows = if traits.rows == Rows::Exact && !whole { Rows::Padded } else { traits.rows };
    if tile.arranged() {
        let [rows, columns] = arrange::shape(m, weight.k(), step as usize);
        if (rows * columns * DType::F16.size()) as u64 > caps.max_binding.min(caps.max_buffer) {
            return Err("activations too large for a copy in the order of matrices".to_string());
        }
    }
    let traits = Traits { rows, ..traits };
    let vector_tiles = caps.backend != wgpu::Backend::Metal;
    Ok(fuse(coop_variant(tile, traits, (a, out), pair, vector_tiles), spec).into())
}

/// Vendors of GPUs that multiply integers as fast as they shift them: NVIDIA and, to be tested, Mesa's on a CPU.
const MULTIPLY_FAST: [u32; 2] = [0x10de, 0x10005];

/// How the Spirv tier multiplies one row, or why it leaves it to others.
fn fragments_for(
    caps: &Caps,
    request: &Request,
    traits: &Traits,
    weight: &Weight,
) -> Result<GemvFragments, String> {
    let (packets, group, format) = (weight.packets(), weight.group(), weight.format());
    let pairs = caps.half_subnormals && takes_pairs((request.a, request.out), traits.rows, request.pair);
    if request.a != DType::F16 || traits.rows == Rows::Ragged {
        return Err("it takes a row of halves, of a number of elements that 8 divides".to_string());
    }
    TwoScales::of(format, group, weight.groups())
        .and_then(|scales| GemvFragments::choose(format, request.n, packets, scales))
        .filter(|tile| tile.products != Products::Pairs || pairs)
        .ok_or_else(|| format!("{} of {packets} packets by {group} is for another tier", format.name()))
}

/// How the Spirv tier takes activations: see `wgsl/matmul/arrange_rows.wgsl`.
#[derive(Clone, Copy)]
pub(super) struct Arrangement {
    /// Columns of a lane.
    pub each: u32,
    /// In the order of pairs of codes, which that decides.
    pub paired: bool,
    /// What rows are padded to a multiple of.
    pub step: usize,
}

/// That which a specialisation needs, if it does.
pub(super) fn arrangement(defines: &Defines) -> Option<Arrangement> {
    let (each, subgroups) = (define(defines, "W_EACH")?, define(defines, "GRID_K")?);
    let order =
        Arrangement { each: each as u32, paired: flag(defines, "HALVES"), step: 4 * each * subgroups };
    flag(defines, "ARRANGED").then_some(order)
}

/// Workgroups for `m` rows of activations and `n` rows of one part of a weight.
pub(super) fn groups(caps: &Caps, defines: &Defines, m: usize, n: usize) -> u64 {
    if let [Some(threads), Some(shares), Some(each)] =
        ["THREADS", "SHARES", "EACH"].map(|name| define(defines, name))
    {
        let products = match (flag(defines, "BYTES"), flag(defines, "BOOK")) {
            (true, _) => Products::Bytes,
            (_, true) => Products::Pairs,
            _ if flag(defines, "TABLE") => Products::Tables,
            _ => Products::Matrices,
        };
        return GemvFragments::groups(products, (threads, shares, each), n, caps.compute_units()) as u64;
    }
    if flag(defines, "FEW") {
        return GemvFew::groups(n, caps.compute_units()) as u64;
    }
    match (define(defines, "COLUMNS"), define(defines, "FRAG_M")) {
        (Some(columns), _) => n.div_ceil(columns) as u64,
        (None, Some(_)) => coop_groups(defines, m, n),
        (None, None) => m.div_ceil(64) as u64 * n.div_ceil(64) as u64,
    }
}

/// The same for a specialisation of `wgsl/common/coop_product.wgsl`.
pub(crate) fn coop_groups(defines: &Defines, m: usize, n: usize) -> u64 {
    let tile = |names: [&str; 3]| names.iter().filter_map(|name| define(defines, name)).product::<usize>();
    let (tile_m, tile_n) = (tile(["GRID_M", "FRAG_M", "SIDE"]), tile(["GRID_N", "FRAG_N", "SIDE"]));
    m.div_ceil(tile_m) as u64 * n.div_ceil(tile_n) as u64
}

fn define(defines: &Defines, name: &str) -> Option<usize> {
    defines.iter().find_map(|(key, value)| match value {
        Def::Num(v) if *key == name => Some(*v as usize),
        _ => None,
    })
}

/// Whether such a flag is set.
pub(super) fn flag(defines: &Defines, name: &str) -> bool {
    defines.iter().any(|(key, value)| *key == name && *value == Def::Flag(true))
}

#[cfg(test)]
mod tests {
    use super::super::{QGEMM, QGEMV};
    use super::*;
    use crate::Gpu;
    use crate::format::{Group, PackedMatrix, ScaleSearch};

    /// A product of `m` rows with 64 rows of `k` columns at the Spirv tier, on a device that binds `max_binding` bytes.
    fn at_spirv(format: Format, m: usize, k: usize, max_binding: u64) -> Result<Defines, String> {
        let gpu = Gpu::new().expect("an adapter");
        let group = if format == Format::Mxfp4 { Group::Size(32) } else { Group::WholeK };
        let packed = PackedMatrix::quantise(&vec![0.5; 64 * k], 64, k, format, group, ScaleSearch::AbsMax);
        let weight = Weight::upload(&gpu, &packed.expect("legal")).expect("small");
        let caps = Caps { max_binding, max_buffer: u64::MAX, ..gpu.caps().clone() };
        let request = Request { spec: &QGEMM, m, n: 64, a: DType::Bf16, out: DType::F16, pair: false };
        variant(&caps, Tier::Spirv, &request, &weight).map(|(defines, _)| defines)
    }

    #[test]
    fn many_rows_are_arranged_in_steps_of_the_workgroup() {
        let order = |format, m| {
            let defines = at_spirv(format, m, 128, u64::MAX).expect("it is served");
            arrangement(&defines).map(|order| (order.each, order.paired, order.step))
        };
        assert_eq!(order(Format::Fp4, 32), None);
        // Few workgroups have four subgroups along K.
        assert_eq!(order(Format::Fp4, 33), Some((32, true, 512)));
        assert_eq!(order(Format::Int8, 1 << 20), Some((16, true, 128)));
        assert_eq!(order(Format::Mxfp4, 1 << 20), Some((32, true, 256)));
    }

    #[test]
    fn what_the_spirv_tier_leaves_to_others() {
        let refused = |format, m, k, max| at_spirv(format, m, k, max).expect_err("it is not served");
        assert!(at_spirv(Format::Nf4, 65, 128, 1 << 20).is_ok());
        assert!(refused(Format::F16, 64, 128, 1 << 20).contains("dense"));
        assert!(refused(Format::Fp4, 64, 100, 1 << 20).contains("8 does not divide"));
        // 40 rows of 512 halves.
        assert!(at_spirv(Format::Fp4, 33, 128, 40 * 1024).is_ok());
        assert!(refused(Format::Fp4, 33, 128, 40 * 1024 - 1).contains("too large"));
    }

    #[test]
    fn one_row_of_long_weights_goes_to_fragments() {
        let gpu = Gpu::new().expect("an adapter");
        let at = |format, (m, n, k), group, a| {
            let weight = Weight::alloc(&gpu, format, n, k, group).expect("it fits");
            let request = Request { spec: &QGEMV, m, n, a, out: DType::F32, pair: false };
            let caps = Caps { subgroup_barrier: true, ..gpu.caps().clone() };
            variant(&caps, Tier::Spirv, &request, &weight).map(|(defines, _)| define(&defines, "THREADS"))
        };
        let (g32, g64) = (Group::Size(32), Group::Size(64));
        assert_eq!(at(Format::Fp4, (1, 1024, 4096), g32, DType::F16), Ok(Some(512)));
        assert_eq!(at(Format::Int4, (1, 1024, 8192), g64, DType::F16), Ok(Some(256)));
        let refused = |m, n, k, group, a| at(Format::Fp4, (m, n, k), group, a).expect_err("it is not served");
        assert!(refused(1, 1024, 4096, g32, DType::Bf16).contains("of halves"));
        assert!(refused(1, 1023, 4096, g32, DType::F16).contains("another tier"));
        // An odd number of scales, and two in a packet.
        assert!(refused(1, 1024, 4128, g32, DType::F16).contains("another tier"));
        assert!(refused(1, 1024, 4096, Group::Size(16), DType::F16).contains("another tier"));
    }

    #[test]
    fn few_rows_of_long_weights_go_to_matrices() {
        let gpu = Gpu::new().expect("an adapter");
        let at = |format, (m, n, k), group, a, pair| {
            let weight = Weight::alloc(&gpu, format, n, k, group).expect("it fits");
            let request = Request { spec: &QGEMV, m, n, a, out: DType::F32, pair };
            let served = variant(gpu.caps(), Tier::Spirv, &request, &weight);
            served.map(|(defines, _)| {
                define(&defines, "ROWS_A").map(|rows| (rows, define(&defines, "THREADS")))
            })
        };
        let f16 = DType::F16;
        let g = Group::Size;
        assert_eq!(at(Format::Fp4, (2, 1024, 4096), g(32), f16, false), Ok(Some((4, Some(512)))));
        assert_eq!(at(Format::Int4, (5, 1024, 3136), g(64), f16, true), Ok(Some((8, Some(448)))));
        assert_eq!(at(Format::Nvfp4, (8, 1024, 3104), g(16), f16, false), Ok(Some((8, Some(448)))));
        for (format, shape, group, a, pair) in [
            (Format::Fp4, (2, 1024, 4096), g(32), DType::Bf16, false),
            (Format::Fp4, (2, 1023, 4096), g(32), f16, false),
            (Format::Fp4, (2, 1024, 4128), g(32), f16, false),
            (Format::Fp4, (2, 1024, 3072), g(32), f16, false),
            // Two scales a packet, of which the second may be in another word; and a product of two such weights.
            (Format::Fp4, (2, 1024, 4096), g(16), f16, false),
            (Format::Nvfp4, (2, 1024, 3088), g(16), f16, false),
            (Format::Nvfp4, (2, 1024, 4096), g(16), f16, true),
            (Format::Int8, (2, 1024, 4096), g(32), f16, false),
        ] {
            let refused = at(format, shape, group, a, pair).expect_err("it is not served");
            assert!(refused.contains("another tier"), "{format:?} {shape:?}: {refused}");
        }
    }

    #[test]
    fn pairs_of_values_make_halves_of_halves_only() {
        let gpu = Gpu::new().expect("an adapter");
        let served = |n, out, pair, half_subnormals| {
            let weight = Weight::alloc(&gpu, Format::Nf4, n, 4160, Group::Size(64)).expect("it fits");
            let request = Request { spec: &QGEMV, m: 1, n, a: DType::F16, out, pair };
            let caps = Caps { subgroup_barrier: true, half_subnormals, ..gpu.caps().clone() };
            variant(&caps, Tier::Spirv, &request, &weight).map(|(defines, _)| define(&defines, "THREADS"))
        };
        let at = |n, out, pair| served(n, out, pair, true);
        assert!(served(8000, DType::F16, false, false).is_err(), "subnormal halves are lost");
        assert_eq!(at(8000, DType::F16, false), Ok(Some(576)));
        for (n, out, pair) in [(7999, DType::F16, false), (8000, DType::F32, false), (8000, DType::F16, true)]
        {
            assert!(at(n, out, pair).is_err(), "{n} {out:?} {pair}");
        }
    }
}
