//! Specialisations of `gemm_batched` on cooperative matrices.

use super::Layout;
use super::batched_few::Few;
use super::batched_spec::Shapes;
use super::spec::{coop_defines, coop_needs, sums};
use super::tiles::{CoopTile, choose_coop, coop_tiles};
use crate::device::Caps;
use crate::kernel::{Def, Variant, defines, unit};
use crate::tensor::DType;

/// What a specialisation depends on beside the tile.
#[derive(Clone, Copy)]
struct Traits {
    /// Of a, w and out.
    dtypes: (DType, DType, DType),
    layout: Layout,
    loads: Loads,
    /// As `gemm_coop`'s: Metal loads matrices from scalars.
    vector_tiles: bool,
}

/// How rows are loaded; see `wgsl/matmul/gemm_batched_coop.wgsl`.
#[derive(Clone, Copy, PartialEq)]
struct Loads {
    /// Rows of a start on 16 bytes.
    wide_a: bool,
    /// Rows of w do.
    wide_w: bool,
    /// Both do, and K is a multiple of the step.
    exact: bool,
}

impl Loads {
    const ALL: [Loads; 5] = [
        Loads { wide_a: true, wide_w: true, exact: true },
        Loads { wide_a: true, wide_w: true, exact: false },
        Loads { wide_a: true, wide_w: false, exact: false },
        Loads { wide_a: false, wide_w: true, exact: false },
        Loads { wide_a: false, wide_w: false, exact: false },
    ];
}

/// The specialisation for a request, or why there is none.
pub(super) fn choose(caps: &Caps, shapes: &Shapes) -> Result<Variant, String> {
    let Shapes { dtypes, layout, batches, m, n, k, strides } = *shapes;
    if dtypes.0 == DType::F32 || dtypes.1 == DType::F32 {
        return Err("cooperative matrices take operands in f16 or bf16".to_string());
    }
    if k == 0 {
        return Err("there is nothing to load".to_string());
    }
    if Few::of(shapes).is_some() {
        return Err("the subgroup tier reads w once for so few rows".to_string());
    }
    // All batches together keep the GPU busy.
    let tile = choose_coop(caps, m, n.saturating_mul(batches), false)?;
    let eights = |values: [usize; 2]| values.iter().all(|v| v.is_multiple_of(8));
    let wide_a = eights([k, strides.0]);
    let wide_w = eights([if layout == Layout::Nk { k } else { n }, strides.1]);
    let exact = wide_a && wide_w && k.is_multiple_of(step(tile));
    let loads = Loads { wide_a, wide_w, exact };
    Ok(variant(tile, Traits { dtypes, layout, loads, vector_tiles: caps.backend != wgpu::Backend::Metal }))
}

/// Elements of w that a thread loads at once.
const EACH: u32 = 8;

/// Columns of K that are loaded at once.
fn step(tile: &CoopTile) -> usize {
    tile.step(&tile.walk(EACH, false)) as usize
}

fn variant(tile: &CoopTile, traits: Traits) -> Variant {
    let Traits { dtypes: (a, w, out), layout, loads: Loads { wide_a, wide_w, exact }, vector_tiles } = traits;
    let kn = layout == Layout::Kn;
    let halves = |wide| Def::Type(if wide { "vec4<u32>" } else { "u32" });
    let mut defines = coop_defines(tile, &tile.walk(EACH, false), vector_tiles);
    defines.retain(|(name, _)| !["BATCHED", "KN"].contains(name));
    defines.extend(defines![
        BATCHED = Def::Flag(true),
        KN = Def::Flag(kn),
        HALVES = Def::Flag(false),
        BOOK = Def::Flag(false),
        SUMS = Def::Num(sums(out, false) as u32),
        TA = Def::Word(a.wgsl()),
        KIND0 = Def::Word(a.wgsl()),
        KIND1 = Def::Word(w.wgsl()),
        KIND3 = Def::Word(out.wgsl()),
        UNIT0 = halves(wide_a),
        UNIT1 = halves(wide_w),
        UNIT2 = Def::Type(unit(out, false)),
        UNIT3 = Def::Type(unit(out, false)),
        WIDE0 = Def::Flag(wide_a),
        WIDE1 = Def::Flag(wide_w),
        EXACT = Def::Flag(exact),
    ]);
    let mut needs = coop_needs(tile);
    if kn {
        // The padding of w's tile is of rows of N.
        needs.workgroup_storage = needs.workgroup_storage + 16 * tile.k - 16 * tile.n() as u32;
    }
    Variant { defines, needs }
}

pub(super) fn variants() -> Vec<Variant> {
    const KINDS: [DType; 2] = [DType::F16, DType::Bf16];
    let mut all = Vec::new();
    for tile in coop_tiles(false) {
        for (a, w) in KINDS.into_iter().flat_map(|a| KINDS.map(|w| (a, w))) {
            for &out in super::batched_spec::KINDS {
                for layout in [Layout::Nk, Layout::Kn] {
                    for loads in Loads::ALL {
                        let traits = Traits { dtypes: (a, w, out), layout, loads, vector_tiles: true };
                        all.push(variant(tile, traits));
                        if (tile.side, tile.lanes) == (8, 32) {
                            all.push(variant(tile, Traits { vector_tiles: false, ..traits })); // Metal
                        }
                    }
                }
            }
        }
    }
    all
}
