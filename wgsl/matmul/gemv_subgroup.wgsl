// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) for M ≤ ROWS_A = 1, 2, 4 or 8 rows of activations: every weight is read once.
// A workgroup takes COLUMNS rows of w and its THREADS threads walk them side by side, one packet (16 bytes, and its scale) of
// each row a thread and step, all loaded before any is used: that many loads in flight are what fills the memory bus.
// A thread's activations, once loaded and widened, serve all COLUMNS packets. Sums meet by a transposing butterfly:
// at 32 lanes 9 shuffles for 8 sums instead of 40. Instructions bound it: 27 for 8 FP4 codes as f32.
// BYTES multiplies integer codes by activations of two bytes, four at once: 7 instructions for 8 INT4 codes, none of them a conversion.
// HALVES without BYTES multiplies FP4 codes by activations of f16, two at once: 19 for 8 codes.
// EARLY holds the compiler from moving loads behind the work on others, as it would to save registers.
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/linear.wgsl"
//!include "common/rows.wgsl"
//!include "common/fold.wgsl"
//!include "common/top.wgsl"
#if NORM
//!include "common/gamma.wgsl"
#endif

#if NORM
const PARTIALS = BLOCKS * 8u + 8u; // the sums of squares of up to eight rows
#else
const PARTIALS = BLOCKS * 8u;
#endif
// A sum of every subgroup, of at least 8 lanes, for every value.
var<workgroup> partial: array<f32, THREADS / 8u * PARTIALS>;

#if BYTES
//!include "common/digits.wgsl"
//!include "common/rate.wgsl"
const SUM_UNIT = 1.0 / BYTE_UNIT;
#else
const SUM_UNIT = CODE_UNIT;
const BYTE_ZERO = 0.0;
#if HALVES
//!include "common/rate.wgsl"
//!include "common/half_rate.wgsl"
//!include "common/pairs.wgsl"
#endif
#endif

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
#if BOOK
    fill_book(lane.thread);
    workgroupBarrier();
#endif
    let first = group_index(place.group, place.groups) * COLUMNS;
#for c COLUMNS
    let row_{c} = min(first + {c}u, params.n - 1u); // past the end: computed, not stored
#for m ROWS_A
    var sum_{c}_{m} = 0.0;
#endfor
#endfor
#for m ROWS_A
    let row_a_{m} = min({m}u, params.m - 1u);
#if NORM
    var squares_{m} = 0.0;
#endif
#endfor
    // Zero, as grids have no third dimension, which the compiler does not know.
    let nothing = place.group.z;
    for (var packet = lane.thread; packet < params.packets; packet += THREADS) {
#for c COLUMNS
        let w_{c} = load_packet(row_{c}, packet);
#for s SPANS
        let scale_{c}_{s} = load_scale(row_{c}, span_group(packet, {s}u));
        let zero_{c}_{s} = load_zero(row_{c}, span_group(packet, {s}u));
#endfor
#endfor
#if EARLY
        // What takes in this zero comes after all loads.
        var late = nothing;
#for c COLUMNS
        late &= w_{c}.x;
#if PACKET_WORDS == 3
        late &= w_{c}.y & w_{c}.z;
#endif
#for s SPANS
        late &= bitcast<u32>(scale_{c}_{s});
#if STORED_ZEROS
        late &= bitcast<u32>(zero_{c}_{s});
#endif
#endfor
#endfor
#else
        let late = 0u;
#endif
#for s SPANS
        {
#if BYTES
            // As integers of two digits, in units of their own for what shares a scale.
#for u SPAN_UNITS
#for e 2
            let k_{u}_{e} = packet * PACKET + (({s}u * SPAN_UNITS + {u}u) * 2u + {e}u) * 8u;
#if NORM
            let gains_{u}_{e} = gamma_eight(k_{u}_{e});
#endif
#endfor
#endfor
#for m ROWS_A
            var total_{m} = 0.0;
            var top_{m} = Top();
            var bad_{m} = Top();
            var ready_{m} = late;
#for u SPAN_UNITS
#for e 2
            let raw_{u}_{e}_{m} = load_nth_eight(row_a_{m}, packet * PACKET, ({s}u * SPAN_UNITS + {u}u) * 2u + {e}u);
            let y_{u}_{e}_{m} = widen(raw_{u}_{e}_{m}, k_{u}_{e});
#if EARLY
            ready_{m} &= first_bits(raw_{u}_{e}_{m});
#endif
#if NORM
            squares_{m} = dot_eight(y_{u}_{e}_{m}, y_{u}_{e}_{m}, squares_{m});
            let x_{u}_{e}_{m} = times(y_{u}_{e}_{m}, gains_{u}_{e});
#else
            let x_{u}_{e}_{m} = y_{u}_{e}_{m};
#endif
            total_{m} += sum_eight(x_{u}_{e}_{m});
#if HALVES
            top_{m} = higher(top_{m}, kept(raw_{u}_{e}_{m}, k_{u}_{e}));
            bad_{m} = unless_finite(bad_{m}, kept(raw_{u}_{e}_{m}, k_{u}_{e}), nothing);
#else
            top_{m} = higher(top_{m}, x_{u}_{e}_{m});
            bad_{m} = unless_finite(bad_{m}, x_{u}_{e}_{m}, nothing);
#endif
#endfor
#endfor
            // Below MOST.
            let safe_{m} = rate_of(1.01 * highest(top_{m}), 14u);
            let unit_{m} = inverse(safe_{m}) + f32((bad_{m}.x + bad_{m}.y) + (bad_{m}.z + bad_{m}.w));
            let rate_{m} = bitcast<f32>(bitcast<u32>(safe_{m}) | ready_{m});
#for u SPAN_UNITS
            let all_{u}_{m} = in_order(x_{u}_0_{m}, x_{u}_1_{m});
#for i 4
            let d_{u}_{i}_{m} = digits_of(all_{u}_{m}[{i}], rate_{m});
#endfor
#endfor
#endfor
#for c COLUMNS
#for u SPAN_UNITS
            let b_{u}_{c} = bytes(w_{c}, {s}u * SPAN_UNITS + {u}u);
#endfor
#for m ROWS_A
            var low_{c}_{m} = 0;
            var high_{c}_{m} = 0;
#for u SPAN_UNITS
#for i 4
            low_{c}_{m} += dot4I8Packed(b_{u}_{c}[{i}], d_{u}_{i}_{m}.x);
            high_{c}_{m} += dot4I8Packed(b_{u}_{c}[{i}], d_{u}_{i}_{m}.y);
#endfor
#endfor
            let part_{c}_{m} = f32((high_{c}_{m} << 8u) + low_{c}_{m}) * unit_{m};
#endfor
#endfor
#elif HALVES
            // In units of their own for what shares a scale, so that products of halves neither vanish nor overflow.
#for m ROWS_A
            let total_{m} = 0.0;
            var top_{m} = Top();
            var ready_{m} = late;
#for h SPAN_CHUNKS
            let i_{h}_{m} = {s}u * SPAN_CHUNKS + {h}u;
            let raw_{h}_{m} = kept(load_nth_eight(row_a_{m}, packet * PACKET, i_{h}_{m}), packet * PACKET + i_{h}_{m} * 8u);
            ready_{m} &= raw_{h}_{m}.x;
            top_{m} = higher(top_{m}, raw_{h}_{m});
#endfor
            let safe_{m} = half_rate(highest(top_{m}), 8u);
            let unit_{m} = inverse(safe_{m});
            // What halves cannot hold of it is a factor of its own, of tiny activations.
            let part_rate_{m} = min(safe_{m}, 32768.0);
            let rate_{m} = f16(bitcast<f32>(bitcast<u32>(part_rate_{m}) | ready_{m}));
#for h SPAN_CHUNKS
            var x_{h}_{m} = scaled(paired(raw_{h}_{m}), rate_{m});
#endfor
            if safe_{m} > 32768.0 {
                let rest_{m} = f16(safe_{m} / 32768.0);
#for h SPAN_CHUNKS
                x_{h}_{m} = scaled(x_{h}_{m}, rest_{m});
#endfor
            }
#endfor
#for c COLUMNS
#for h SPAN_CHUNKS
            let v_{h}_{c} = half_codes(w_{c}, {s}u * SPAN_CHUNKS + {h}u);
#endfor
#for m ROWS_A
            var pair_{c}_{m} = vec2<f32>();
#for h SPAN_CHUNKS
            pair_{c}_{m} += dot_pairs(v_{h}_{c}, x_{h}_{m});
#endfor
            let part_{c}_{m} = (pair_{c}_{m}.x + pair_{c}_{m}.y) * unit_{m};
#endfor
#endfor
#else
            // The chunks of 8 that share a scale.
#for m ROWS_A
            var total_{m} = 0.0;
#for c COLUMNS
            var part_{c}_{m} = 0.0;
#endfor
#endfor
#for h SPAN_CHUNKS
            let k_{h} = packet * PACKET + ({s}u * SPAN_CHUNKS + {h}u) * 8u;
#if NORM
            let gains_{h} = gamma_eight(k_{h});
#endif
#for m ROWS_A
#if NORM
            let raw_{h}_{m} = widen(after(late, load_eight(row_a_{m}, k_{h})), k_{h});
            squares_{m} = dot_eight(raw_{h}_{m}, raw_{h}_{m}, squares_{m});
            let x_{h}_{m} = times(raw_{h}_{m}, gains_{h});
#else
            let x_{h}_{m} = widen(after(late, load_eight(row_a_{m}, k_{h})), k_{h});
#endif
            if OFFSET_CODES { total_{m} += sum_eight(x_{h}_{m}); }
#endfor
#for c COLUMNS
            let v_{h}_{c} = decode(w_{c}, {s}u * SPAN_CHUNKS + {h}u);
#for m ROWS_A
            part_{c}_{m} = dot_eight(v_{h}_{c}, x_{h}_{m}, part_{c}_{m});
#endfor
#endfor
#endfor
#endif
#for c COLUMNS
#for m ROWS_A
            sum_{c}_{m} += scale_{c}_{s} * (part_{c}_{m} - (zero_{c}_{s} - BYTE_ZERO) / SUM_UNIT * total_{m});
#endfor
#endfor
        }
#endfor
    }
    var sums: array<f32, BLOCKS * 8u>;
#for c COLUMNS
#for m ROWS_A
    sums[{c}u * ROWS_A + {m}u] = sum_{c}_{m};
#endfor
#endfor
#for b BLOCKS
    let lo_{b} = vec4<f32>(sums[{b}u * 8u], sums[{b}u * 8u + 1u], sums[{b}u * 8u + 2u], sums[{b}u * 8u + 3u]);
    let hi_{b} = vec4<f32>(sums[{b}u * 8u + 4u], sums[{b}u * 8u + 5u], sums[{b}u * 8u + 6u], sums[{b}u * 8u + 7u]);
    let folded_{b} = fold(lo_{b}, hi_{b}, lane);
    if lane.subgroup_lane < 8u { partial[lane.subgroup * PARTIALS + {b}u * 8u + lane.subgroup_lane] = folded_{b}; }
#endfor
#if NORM
    var squares = array<f32, 8>(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
#for m ROWS_A
    squares[{m}] = squares_{m};
#endfor
    let squares_lo = vec4<f32>(squares[0], squares[1], squares[2], squares[3]);
    let squares_hi = vec4<f32>(squares[4], squares[5], squares[6], squares[7]);
    let folded = fold(squares_lo, squares_hi, lane);
    if lane.subgroup_lane < 8u { partial[lane.subgroup * PARTIALS + BLOCKS * 8u + lane.subgroup_lane] = folded; }
#endif
    workgroupBarrier();
    // Value v is column v / ROWS_A of these for row v % ROWS_A of a.
    let v = lane.thread;
    let column = v / ROWS_A;
    let m = v % ROWS_A;
    if v < VALUES && column % SUMS == 0u && first + column < params.n && m < params.m {
#if SUMS == 4
        let low = vec2<f32>(sum_of(v, lane), sum_of(v + ROWS_A, lane));
        let high = vec2<f32>(sum_of(v + 2u * ROWS_A, lane), sum_of(v + 3u * ROWS_A, lane));
        finish(vec4<f32>(low, high), m, first + column);
#elif SUMS == 2
        finish(vec2<f32>(sum_of(v, lane), sum_of(v + ROWS_A, lane)), m, first + column);
#else
        finish(sum_of(v, lane), m, first + column);
#endif
    }
}

fn first_bits(raw: RawEight) -> u32 {
#if ROWS == ragged
    return bitcast<u32>(raw.lo.x);
#elif TA == f32
    return bitcast<u32>(raw.lo.x);
#else
    return raw.x;
#endif
}

// Activations that are used only once `late`, a zero, is known.
fn after(late: u32, raw: RawEight) -> RawEight {
#if EARLY
    var x = raw;
#if ROWS == ragged
    x.lo.x = bitcast<f32>(bitcast<u32>(x.lo.x) | late);
#elif TA == f32
    x.lo.x = bitcast<f32>(bitcast<u32>(x.lo.x) | late);
#else
    x.x |= late;
#endif
    return x;
#else
    return raw;
#endif
}

// The sum over the workgroup of one value.
fn sum_of(v: u32, lane: Lane) -> f32 {
    var sum = 0.0;
    for (var s = 0u; s < lane.subgroups; s++) { sum += partial[s * PARTIALS + v]; }
#if NORM
    var squares = 0.0;
    for (var s = 0u; s < lane.subgroups; s++) { squares += partial[s * PARTIALS + BLOCKS * 8u + v % ROWS_A]; }
    sum *= norm_factor(squares);
#endif
    return sum * SUM_UNIT;
}

// The group of a packet's `span`th part.
fn span_group(packet: u32, span: u32) -> u32 {
    return scale_group(packet * PACKET + span * (PACKET / SPANS));
}

fn sum_eight(x: Eight) -> f32 {
    let s = x.lo + x.hi;
    return (s.x + s.y) + (s.z + s.w);
}

// A chain of multiply-adds; dot() would start with a product and end with an addition.
fn dot_eight(v: Eight, x: Eight, sum: f32) -> f32 {
    let low = fma(v.lo.w, x.lo.w, fma(v.lo.z, x.lo.z, fma(v.lo.y, x.lo.y, fma(v.lo.x, x.lo.x, sum))));
    return fma(v.hi.w, x.hi.w, fma(v.hi.z, x.hi.z, fma(v.hi.y, x.hi.y, fma(v.hi.x, x.hi.x, low))));
}
