// out[M,N] = epilogue(a[M,K] · w[N,K]ᵀ) for M ≤ ROWS_A = 1, 2, 4 or 8 rows of activations: every weight is read once. Base tier.
// A workgroup takes COLUMNS rows of w. Its threads walk the rows side by side, 16 bytes of weights (and their scales) a
// thread and step, loaded one step ahead of what they decode in registers and multiply with all rows of a. These come
// from the cache: w is the only stream from memory. Scales are applied once per group and thread.
#if NEEDS_F16
enable f16;
#endif
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/linear.wgsl"
//!include "common/rows.wgsl"
#if NORM
//!include "common/gamma.wgsl"
#endif

var<workgroup> partial: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let first = group_index(place.group, place.groups) * COLUMNS;
#for c COLUMNS
    let row_{c} = min(first + {c}u, params.n - 1u); // past the end: computed, not stored
    // Always one packet ahead, without a condition.
    var next_{c} = load_packet(row_{c}, min(lane.thread, params.packets - 1u));
#for s SPANS
    var next_scale_{c}_{s} = load_scale(row_{c}, span_group(min(lane.thread, params.packets - 1u), {s}u));
    var next_zero_{c}_{s} = load_zero(row_{c}, span_group(min(lane.thread, params.packets - 1u), {s}u));
#endfor
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
        let ahead = min(packet + THREADS, params.packets - 1u);
#for c COLUMNS
        let packet_{c} = next_{c};
        next_{c} = load_packet(row_{c}, ahead);
#for s SPANS
        let scale_{c}_{s} = next_scale_{c}_{s};
        let zero_{c}_{s} = next_zero_{c}_{s} / CODE_UNIT;
        next_scale_{c}_{s} = load_scale(row_{c}, span_group(ahead, {s}u));
        next_zero_{c}_{s} = load_zero(row_{c}, span_group(ahead, {s}u));
#endfor
#endfor
#for s SPANS
        {
            // CHUNKS / SPANS chunks of 8 that share a scale.
            let k0 = packet * PACKET + {s}u * (PACKET / SPANS);
#for m ROWS_A
            var total_{m} = 0.0;
#for c COLUMNS
            var part_{c}_{m} = 0.0;
#endfor
#endfor
#for h SPAN_CHUNKS
#if NORM
            let gains_{h} = gamma_eight(k0 + {h}u * 8u);
#endif
#for m ROWS_A
#if NORM
            let raw_{h}_{m} = widen(load_eight(row_a_{m}, k0 + {h}u * 8u), k0 + {h}u * 8u);
            squares_{m} = dot_eight(raw_{h}_{m}, raw_{h}_{m}, squares_{m});
            let x_{h}_{m} = times(raw_{h}_{m}, gains_{h});
#else
            let x_{h}_{m} = widen(load_nth_eight(row_a_{m}, k0, {h}u), k0 + {h}u * 8u);
#endif
            if OFFSET_CODES { total_{m} += sum_eight(x_{h}_{m}); }
#endfor
#for c COLUMNS
            let v_{h}_{c} = decode(packet_{c}, {s}u * SPAN_CHUNKS + {h}u);
#for m ROWS_A
            part_{c}_{m} = dot_eight(v_{h}_{c}, x_{h}_{m}, part_{c}_{m});
#endfor
#endfor
#endfor
#for c COLUMNS
#for m ROWS_A
            sum_{c}_{m} += scale_{c}_{s} * (part_{c}_{m} - zero_{c}_{s} * total_{m});
#endfor
#endfor
        }
#endfor
    }
    // Sums of the workgroup, and the epilogue by its first thread.
#for m ROWS_A
#if NORM
    let factor_{m} = norm_factor(group_sum(squares_{m}, lane));
#for c COLUMNS
    let all_{c}_{m} = group_sum(sum_{c}_{m} * CODE_UNIT, lane) * factor_{m};
#endfor
#else
#for c COLUMNS
    let all_{c}_{m} = group_sum(sum_{c}_{m} * CODE_UNIT, lane);
#endfor
#endif
    if lane.thread == 0u && {m}u < params.m {
        finish_four(vec4<f32>(all_0_{m}, all_1_{m}, all_2_{m}, all_3_{m}), {m}u, first);
    }
#endfor
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

// The group of a packet's `span`th part.
fn span_group(packet: u32, span: u32) -> u32 {
    return scale_group(packet * PACKET + span * (PACKET / SPANS));
}

// For thread 0 the sum over the workgroup.
fn group_sum(value: f32, lane: Lane) -> f32 {
    workgroupBarrier();
    partial[lane.thread] = value;
    for (var step = THREADS / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane.thread < step { partial[lane.thread] += partial[lane.thread + step]; }
    }
    return partial[lane.thread]; // thread 0's is the sum; the others may not read it as it is written
}
