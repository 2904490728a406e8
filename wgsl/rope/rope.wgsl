// Rotary position embedding of q and k in place, in one launch: the heads of a token are q's, then k's.
// One thread turns WIDTH neighbouring pairs of HEADS heads, so that an angle is worked out once for several heads;
// the pairs of a head lie side by side over threads, so that reads and writes are whole cache lines.
// An angle of 10^5 radians has no digits left in f32, and GPUs reduce such angles badly, so the phase is worked out in
// fixed point, in units of 2^-32 turns: whole turns fall off the top of the word, exactly, and no fast-math rewriting
// can touch it.
#if T == f16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/wide.wgsl"

struct Params {
    count: u32,      // threads with work: tokens · blocks of HEADS heads · units
    units: u32,      // of WIDTH pairs in a head
    blocks: u32,
    q_heads: u32,
    k_heads: u32,
    head_units: u32, // head dimension / WIDTH
    partner: u32,    // from a pair's first unit to its second
    k_row: u32,
    mscale: f32,
}
var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> q: array<UNIT>;
@group(0) @binding(1) var<storage, read_write> k: array<UNIT>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> inv_freq: array<f32>;

// 2^64 / 2π, so that the frequency below comes out in turns.
const TURN_HIGH = 0x28be60dbu;
const TURN_LOW = 0x9391054bu;

// position · frequency in units of 2^-32 turns, modulo a turn; good to 2^-30 turns for every u32 position and frequencies to 2.
fn phase_of(position: u32, frequency: f32) -> u32 {
    let bits = bitcast<u32>(frequency);
    let exponent = (bits >> 23u) & 0xffu;
    // |frequency| = mantissa · 2^(exponent - 158), the mantissa's top bit set.
    let mantissa = (bits << 8u) | 0x80000000u;
    // mantissa · 2^64/2π without its lowest word: turns a position, as (low, high) · 2^(exponent - 190).
    let rate = wide_add(wide_mul(mantissa, TURN_HIGH), vec2(wide_mul(mantissa, TURN_LOW).y, 0u));
    var low = rate.x;
    var high = rate.y;
    // Scaled to units of 2^-64 turns, where exponent 126 needs no shift. Shifts of 32 and more are undefined.
    if exponent < 63u {
        return 0u; // below 2^-63: no position turns by 2^-30
    } else if exponent <= 94u {
        low = high >> (94u - exponent);
        high = 0u;
    } else if exponent < 126u {
        let down = 126u - exponent;
        low = (low >> down) | (high << (32u - down));
        high >>= down;
    } else if exponent > 126u {
        let up = min(exponent - 126u, 31u);
        high = (high << up) | (low >> (32u - up));
        low <<= up;
    }
    let phase = position * high + wide_mul(position, low).y;
    return select(phase, 0u - phase, bits >> 31u == 1u);
}

// (cos, sin) of a phase: the nearest quarter turn exactly, the rest by Taylor's series, which at an eighth of a turn
// is good to the last bit of f32. The built-in functions promise no more than 2^-11.
fn turn(phase: u32) -> vec2<f32> {
    let quarter = (phase + 0x20000000u) >> 30u;
    let x = f32(bitcast<i32>(phase - (quarter << 30u))) * 1.4629180792671596e-9; // 2π / 2^32
    let z = x * x;
    let s = x + x * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362880.0))));
    let c = 1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40320.0))));
    let swapped = select(vec2(c, s), vec2(-s, c), (quarter & 1u) == 1u);
    return select(swapped, -swapped, (quarter & 2u) == 2u);
}

struct Units { a: UNIT, b: UNIT }

// Turns the pairs in two units: neighbours within a unit when INTERLEAVED, otherwise one of each unit.
fn turned(u: Units, c: VALUE, s: VALUE) -> Units {
#if SHUFFLED
    let first = vec4<f32>(vec4(u.a.xz, u.b.xz));
    let second = vec4<f32>(vec4(u.a.yw, u.b.yw));
#else
    let first = VALUE(u.a);
    let second = VALUE(u.b);
#endif
    let x = first * c - second * s;
    let y = second * c + first * s;
#if SHUFFLED
    return Units(UNIT(vec4(x.x, y.x, x.y, y.y)), UNIT(vec4(x.z, y.z, x.w, y.w)));
#else
    return Units(UNIT(x), UNIT(y));
#endif
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let at = group_index(group, groups) * THREADS + thread;
    if at >= params.count { return; }
    let block = at / params.units;
    let unit = at - block * params.units;
    let token = block / params.blocks;
    var head = (block - token * params.blocks) * HEADS;
    let end = min(head + HEADS, params.q_heads + params.k_heads);

    let position = positions[token];
#if WIDTH == 4
    var c: VALUE;
    var s: VALUE;
    for (var i = 0u; i < 4u; i++) {
        let cs = params.mscale * turn(phase_of(position, inv_freq[4u * unit + i]));
        c[i] = cs.x;
        s[i] = cs.y;
    }
#else
    let cs = params.mscale * turn(phase_of(position, inv_freq[unit]));
    let c = cs.x;
    let s = cs.y;
#endif
    for (; head < end; head++) {
        if head < params.q_heads {
            let a = (token * params.q_heads + head) * params.head_units + unit * STEP;
            let b = a + params.partner;
            let out = turned(Units(q[a], q[b]), c, s);
            q[a] = out.a;
            q[b] = out.b;
        } else {
            let row = (params.k_row + token) * params.k_heads + head - params.q_heads;
            let a = row * params.head_units + unit * STEP;
            let b = a + params.partner;
            let out = turned(Units(k[a], k[b]), c, s);
            k[a] = out.a;
            k[b] = out.b;
        }
    }
}
