// Quantises rows of a dense weight: f16 scales and codes in the arrangement in which the matrix kernels read them.
// A team of `team` threads takes one group (2 to 16 threads for groups of 16 to 128, up to all of the workgroup for a row):
// each thread eight columns at a time, one word of 4-bit or two of 8-bit codes. The group's largest magnitude goes through
// workgroup memory; the columns are then read again, from registers or the cache. Two scales share a word, which another
// workgroup, or another launch, may write at the same time: hence atomics.
// Scales and codes must not depend on how a GPU divides: the scale is divided and rounded with integers, and codes are
// corrected by exact products (see encode.wgsl).
//!include "common/grid.wgsl"
//!include "common/weight.wgsl"
//!include "common/half_bits.wgsl"
//!include "common/encode.wgsl"

struct Params {
    rows: u32,          // rows of this launch
    k: u32,
    in_first: u32,      // the first row among those of `values`
    in_packets: u32,    // packets from one row of `values` to the next
    out_first: u32,
    out_chunks: u32,    // eights from one row of `codes` to the next, padding included
    first: u32,         // the first element's index in the matrix
    groups: u32,        // of a row
    chunks: u32,        // eights of a group
    team: u32,          // threads of a group, a power of two
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> values: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> codes: array<CODE_UNITS>;
@group(0) @binding(2) var<storage, read_write> scales: array<atomic<u32>>;
// The least index of a value that is no finite number, and of one that is too large for a finite scale.
@group(0) @binding(3) var<storage, read_write> status: array<atomic<u32>>;

var<workgroup> peaks: array<u32, THREADS>;

fn load(row: u32, chunk: u32) -> Eight {
    let at = (params.in_first + row) * params.in_packets + chunk;
#if WEIGHT == f32
    return decode(Packet(values[2u * at], values[2u * at + 1u]), 0u);
#else
    return decode(values[at], 0u);
#endif
}

// Bits of |x|, which are in the order of the numbers, with NaN the largest.
fn sizes(x: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu);
}

// The f32 nearest to peak / (DIVISOR · 2^SHIFT); some tiny number for what is far too small for an f16 scale. There are no
// ties: an exact quotient ends in eight zeros, so one whose remaining bits are half a unit is inexact and rounds up.
fn full_scale(peak: u32) -> f32 {
    let exponent = peak >> 23u;
    if exponent < 64u { return 1e-20; }
    let quotient = (((peak & 0x7fffffu) | 0x800000u) << 8u) / DIVISOR;
    let extra = firstLeadingBit(quotient) - 23u;
    let mantissa = (quotient + (1u << (extra - 1u))) >> extra;
    return f32(mantissa) * bitcast<f32>((exponent + extra - 31u - SHIFT) << 23u);
}

// The bits of the f16 nearest to a positive scale. An underflow gives the least positive f16.
fn scale_bits(scale: f32) -> u32 {
    return max(half_bits(scale), 1u);
}

fn code_of(x: f32, scale: f32, per_scale: f32) -> u32 {
    let sign = bitcast<u32>(x) >> 31u;
#if STORE == int8
    let code = nearest(abs(x), scale, per_scale, MOST);
    return select(code, 256u - code, sign == 1u) & 255u;
#elif STORE == int4
    // The lowest code has no positive counterpart.
    let code = nearest(abs(x), scale, per_scale, MOST + sign);
    return select(8u + code, 8u - code, sign == 1u);
#else
    return nearest(abs(x), scale, per_scale, MOST) | (sign * SIGN);
#endif
}

fn codes_of(x: vec4<f32>, scale: f32) -> vec4<u32> {
    let per = 1.0 / scale;
    return vec4(
        code_of(x.x, scale, per), code_of(x.y, scale, per), code_of(x.z, scale, per), code_of(x.w, scale, per),
    );
}

fn store(row: u32, chunk: u32, x: Eight, scale: f32) {
    var low = codes_of(x.lo, scale);
    var high = codes_of(x.hi, scale);
#if STORE == int4
    // Padding is 0 in all formats; that is not the code of 0 in this one.
    let k = vec4<u32>(8u * chunk) + vec4<u32>(0u, 1u, 2u, 3u);
    low = select(vec4<u32>(), low, k < vec4<u32>(params.k));
    high = select(vec4<u32>(), high, k + vec4<u32>(4u) < vec4<u32>(params.k));
#endif
    let at = (params.out_first + row) * params.out_chunks + chunk;
#if STORE == fp4
    codes[at] = arrange(low) | (arrange(high) << 16u);
#elif STORE == int4
    codes[at] = joined(low << vec4<u32>(0u, 4u, 8u, 12u)) | joined(high << vec4<u32>(16u, 20u, 24u, 28u));
#else
    let places = vec4<u32>(0u, 8u, 16u, 24u);
    codes[at] = vec2<u32>(joined(low << places), joined(high << places));
#endif
}

fn joined(parts: vec4<u32>) -> u32 {
    return parts.x | parts.y | parts.z | parts.w;
}

#if STORE == fp4
// See arrange_fp4 in src/matmul/weight.rs.
fn arrange(q: vec4<u32>) -> u32 {
    return joined((q >> vec4<u32>(3u)) << vec4<u32>(15u, 12u, 14u, 13u))
        | joined((q & vec4<u32>(7u)) << vec4<u32>(9u, 6u, 3u, 0u));
}
#endif

// Notes the elements that made the group's peak impossible.
fn complain(row: u32, chunk: u32, peak: u32) {
    let x = load(row, chunk);
    let at = params.first + row * params.k + 8u * chunk;
    let lo = sizes(x.lo);
    let hi = sizes(x.hi);
    let bad = peak >= 0x7f800000u;
    let least = select(peak, 0x7f800000u, bad);
    let kind = select(1u, 0u, bad);
#for i 4
    if lo[{i}] >= least { atomicMin(&status[kind], at + {i}u); }
    if hi[{i}] >= least { atomicMin(&status[kind], at + {i}u + 4u); }
#endfor
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let t = thread % params.team;
    let index = group_index(workgroup, workgroups) * (THREADS / params.team) + thread / params.team;
    // Threads without a group keep the others company at the barriers.
    let row = index / params.groups;
    let group = index % params.groups;
    let first = group * params.chunks;
    let chunks = select(0u, params.chunks, row < params.rows);

    var peak = 0u;
    var x: Eight;
    for (var c = t; c < chunks; c += params.team) {
        x = load(row, first + c);
        let most = max(sizes(x.lo), sizes(x.hi));
        peak = max(peak, max(max(most.x, most.y), max(most.z, most.w)));
    }
    peaks[thread] = peak;
    for (var step = params.team / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if t < step { peaks[thread] = max(peaks[thread], peaks[thread + step]); }
    }
    workgroupBarrier();
    peak = peaks[thread - t];
    if chunks == 0u { return; }

    // A group of zeros has the scale 0; any divisor gives it the codes of zeros.
    var half = select(0u, scale_bits(full_scale(peak)), peak != 0u);
    if peak >= 0x7f800000u || half >= 0x7c00u {
        half = 0u;
        for (var c = t; c < chunks; c += params.team) { complain(row, first + c, peak); }
    }
    let scale = select(unpack2x16float(half).x, 1.0, half == 0u);
    for (var c = t; c < chunks; c += params.team) {
        if params.chunks > params.team { x = load(row, first + c); }
        if half == 0u { x = zeros_like(x); }
        store(row, first + c, x, scale);
    }
    if group == params.groups - 1u {
        for (var c = first + chunks + t; c < params.out_chunks; c += params.team) {
            codes[(params.out_first + row) * params.out_chunks + c] = CODE_UNITS();
        }
    }
    if t == 0u {
        let at = (params.out_first + row) * params.groups + group;
        let shift = (at & 1u) * 16u;
        atomicAnd(&scales[at >> 1u], ~(0xffffu << shift));
        atomicOr(&scales[at >> 1u], half << shift);
    }
}

// Zeros with the signs of x, which the codes of floats keep.
fn zeros_like(x: Eight) -> Eight {
    let sign = vec4<u32>(0x80000000u);
    return Eight(
        bitcast<vec4<f32>>(bitcast<vec4<u32>>(x.lo) & sign), bitcast<vec4<f32>>(bitcast<vec4<u32>>(x.hi) & sign),
    );
}
