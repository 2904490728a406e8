// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) for M ≤ ROWS_A = 1, 2, 4 or 8 rows of activations: every weight is read once.
// A workgroup takes COLUMNS rows of w and its THREADS threads walk them side by side, one packet (16 bytes, and its scale) of
// each row a thread and step, all loaded before any is used: that many loads in flight are what fills the memory bus.
// A thread's activations, once loaded and widened, serve all COLUMNS packets. Sums meet by a transposing butterfly:
// 7 shuffles for 8 sums instead of 40. Instructions bound it: 27 for 8 FP4 codes.
// BYTES multiplies integer codes by activations of two bytes, four at once: 7 instructions for 8 INT4 codes, none of them a conversion.
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
const SUM_UNIT = 1.0;
#else
const SUM_UNIT = CODE_UNIT;
const BYTE_ZERO = 0.0;
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
    for (var packet = lane.thread; packet < params.packets; packet += THREADS) {
#for c COLUMNS
        let w_{c} = load_packet(row_{c}, packet);
#for s SPANS
        let scale_{c}_{s} = load_scale(row_{c}, span_group(packet, {s}u));
        let zero_{c}_{s} = load_zero(row_{c}, span_group(packet, {s}u));
#endfor
#endfor
#if EARLY
        // Zero, as grids have no third dimension, which the compiler does not know: what takes it in comes after all loads.
        var late = place.group.z;
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
            var top_{m} = vec4<f32>(1e-33);
#for u SPAN_UNITS
#for e 2
#if NORM
            let raw_{u}_{e}_{m} = widen(load_eight(row_a_{m}, k_{u}_{e}), k_{u}_{e});
            squares_{m} = dot_eight(raw_{u}_{e}_{m}, raw_{u}_{e}_{m}, squares_{m});
            let x_{u}_{e}_{m} = times(raw_{u}_{e}_{m}, gains_{u}_{e});
#else
            let x_{u}_{e}_{m} = widen(load_eight(row_a_{m}, k_{u}_{e}), k_{u}_{e});
#endif
            total_{m} += sum_eight(x_{u}_{e}_{m});
            top_{m} = max(top_{m}, max(abs(x_{u}_{e}_{m}.lo), abs(x_{u}_{e}_{m}.hi)));
#endfor
#endfor
            let unit_{m} = max(max(top_{m}.x, top_{m}.y), max(top_{m}.z, top_{m}.w)) / MOST;
            let rate_{m} = bitcast<f32>(bitcast<u32>(1.0 / unit_{m}) | late);
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
