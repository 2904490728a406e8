// Writes rows of K and V into a cache in blocks, quantised on the way: one f16 scale per row, codes nearest, ties to even.
// A team of `team` threads takes one (token, head): each thread eight elements of K, then of V. The row's maximum goes
// through workgroup memory.
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/half_bits.wgsl"

struct Params {
    rows: u32,          // tokens × heads
    kv_heads: u32,
    d8: u32, e8: u32,   // eights in a row of K, of V
    block: u32,         // rows of a block
    capacity: u32,      // rows of all blocks, per head
    team: u32,          // threads of a row, a power of two
    half: u32,          // the new rows are f16
    per_largest: f32,   // 1 / value of the largest code
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> k_new: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> v_new: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read_write> k: array<u32>;
@group(0) @binding(4) var<storage, read_write> v: array<u32>;
@group(0) @binding(5) var<storage, read_write> scales: array<u32>;

struct Eight { lo: vec4<f32>, hi: vec4<f32> }

fn widen(raw: vec4<u32>) -> Eight {
    return Eight(
        vec4<f32>(unpack2x16float(raw.x), unpack2x16float(raw.y)),
        vec4<f32>(unpack2x16float(raw.z), unpack2x16float(raw.w)),
    );
}
fn load_k(i: u32) -> Eight {
    if params.half != 0u { return widen(k_new[i]); }
    return Eight(bitcast<vec4<f32>>(k_new[2u * i]), bitcast<vec4<f32>>(k_new[2u * i + 1u]));
}
fn load_v(i: u32) -> Eight {
    if params.half != 0u { return widen(v_new[i]); }
    return Eight(bitcast<vec4<f32>>(v_new[2u * i]), bitcast<vec4<f32>>(v_new[2u * i + 1u]));
}

#if STORE == bf16
fn bf16_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
#endif

#if QUANTISED
//!include "common/encode.wgsl"

fn code_of(x: f32, scale: f32, per_scale: f32) -> u32 {
    let code = nearest(abs(x), scale, per_scale, MOST);
#if STORE == int8
    return u32(128 + select(i32(code), -i32(code), x < 0.0));
#elif STORE == int4
    return u32(8 + select(i32(code), -i32(code), x < 0.0));
#else
    return code | select(0u, SIGN, x < 0.0);
#endif
}

// A scale of 0 belongs to a row of zeros, or of what is too small for any f16 scale.
fn codes4(x: vec4<f32>, scale: f32) -> vec4<u32> {
    let s = select(scale, 1.0, scale == 0.0);
    let y = select(x, vec4<f32>(), scale == 0.0);
    let per = 1.0 / s;
    return vec4(code_of(y.x, s, per), code_of(y.y, s, per), code_of(y.z, s, per), code_of(y.w, s, per));
}
#endif

struct Packed { a: vec4<u32>, b: vec4<u32> }

// Eight elements as UNITS words.
fn pack(x: Eight, scale: f32) -> Packed {
#if STORE == f32
    return Packed(bitcast<vec4<u32>>(x.lo), bitcast<vec4<u32>>(x.hi));
#elif STORE == f16
    let a = vec4(half_bits(x.lo.x), half_bits(x.lo.z), half_bits(x.hi.x), half_bits(x.hi.z));
    let b = vec4(half_bits(x.lo.y), half_bits(x.lo.w), half_bits(x.hi.y), half_bits(x.hi.w));
    return Packed(a | (b << vec4(16u)), vec4<u32>());
#elif STORE == bf16
    let a = vec4(bf16_bits(x.lo.x), bf16_bits(x.lo.z), bf16_bits(x.hi.x), bf16_bits(x.hi.z));
    let b = vec4(bf16_bits(x.lo.y), bf16_bits(x.lo.w), bf16_bits(x.hi.y), bf16_bits(x.hi.w));
    return Packed(a | (b << vec4(16u)), vec4<u32>());
#else
    let a = codes4(x.lo, scale);
    let b = codes4(x.hi, scale);
#if UNITS == 2
    let bytes = vec4(0u, 8u, 16u, 24u);
    let low = a << bytes;
    let high = b << bytes;
    return Packed(vec4(low.x | low.y | low.z | low.w, high.x | high.y | high.z | high.w, 0u, 0u), vec4<u32>());
#elif STORE == int4
    let low = a << vec4(0u, 4u, 8u, 12u);
    let high = b << vec4(16u, 20u, 24u, 28u);
    return Packed(vec4(low.x | low.y | low.z | low.w | high.x | high.y | high.z | high.w, 0u, 0u, 0u), vec4<u32>());
#else
    return Packed(vec4(arrange(a) | (arrange(b) << 16u), 0u, 0u, 0u), vec4<u32>());
#endif
#endif
}

#if STORE == fp4
fn arrange(codes: vec4<u32>) -> u32 {
    let signs = (codes >> vec4(3u)) << vec4(15u, 12u, 14u, 13u);
    let sizes = (codes & vec4(7u)) << vec4(9u, 6u, 3u, 0u);
    let all = signs | sizes;
    return all.x | all.y | all.z | all.w;
}
#endif

const THREADS = 64u;
var<workgroup> peaks: array<vec2<f32>, THREADS>;

fn peak(x: Eight) -> f32 {
    let most = max(abs(x.lo), abs(x.hi));
    return max(max(most.x, most.y), max(most.z, most.w));
}

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let teams = THREADS / params.team;
    let group = group_index(place.group, place.groups);
    if group * teams >= params.rows { return; }
    let row = min(group * teams + lane.thread / params.team, params.rows - 1u);
    let t = lane.thread % params.team;
    let x = load_k(row * params.d8 + min(t, params.d8 - 1u));
    let y = load_v(row * params.e8 + min(t, params.e8 - 1u));
    var scale = vec2(1.0);
    var halves = vec2<u32>();
#if QUANTISED
    peaks[lane.thread] = vec2(peak(x), peak(y));
    workgroupBarrier();
    var most = vec2<f32>();
    for (var i = 0u; i < params.team; i++) { most = max(most, peaks[lane.thread - t + i]); }
    most = min(most * params.per_largest, vec2(65504.0));
    halves = vec2(half_bits(most.x), half_bits(most.y));
    scale = unpack2x16float(halves.x | (halves.y << 16u));
#endif
    let slot = slots[row / params.kv_heads];
    if slot >= params.capacity || group * teams + lane.thread / params.team >= params.rows { return; }
    let block = slot / params.block;
    let at = (block * params.kv_heads + row % params.kv_heads) * params.block + slot % params.block;
    let words_x = pack(x, scale.x);
    let words_y = pack(y, scale.y);
    if t < params.d8 {
        let to = (at * params.d8 + t) * UNITS;
        for (var i = 0u; i < min(UNITS, 4u); i++) { k[to + i] = words_x.a[i]; }
        for (var i = 4u; i < UNITS; i++) { k[to + i] = words_x.b[i - 4u]; }
    }
    if t < params.e8 {
        let to = (at * params.e8 + t) * UNITS;
        for (var i = 0u; i < min(UNITS, 4u); i++) { v[to + i] = words_y.a[i]; }
        for (var i = 4u; i < UNITS; i++) { v[to + i] = words_y.b[i - 4u]; }
    }
#if QUANTISED
    if t == 0u { scales[at] = halves.x | (halves.y << 16u); }
#endif
}
