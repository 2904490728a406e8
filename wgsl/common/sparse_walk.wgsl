// 2:4, one row of halves: a workgroup takes COLUMNS rows of w and its THREADS threads walk them side by side, one packet (16 bytes of
// kept values, 8 of positions) of each row a thread and step. Each thread has a table of its own of the pairs of activations that
// positions can pick from the 16 columns of a chunk: six for each four columns, which serve all rows; no thread waits for another.
// Pairs are numbered i + 4 (j - 1); the numbers in use, 0, 4, 5, 8, 9 and 10, leave room for those of the next four columns
// seven places on. Entries lie [entry][thread], so gathering never conflicts.
//!include "common/fold.wgsl"
const STEP = 7u;
var<workgroup> table: array<array<vec2<TA>, THREADS>, 32>;
var<workgroup> partial: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    let first = group_index(place.group, place.groups) * COLUMNS;
#for c COLUMNS
    let row_{c} = min(first + {c}u, params.n - 1u); // past the end: computed, not stored
    var sum_{c} = 0.0;
#endfor
    for (var packet = lane.thread; packet < params.packets; packet += THREADS) {
        // Zero, as grids have no third dimension, which the compiler does not know: what takes it in comes after all loads.
        var late = place.group.z;
#for c COLUMNS
        let w_{c} = w[row_{c} * params.packets + packet];
        let bits_{c} = indices[row_{c} * params.packets + packet];
        late &= w_{c}.x & bits_{c}.x;
#for s SCALES
        let scale_{c}_{s} = scale_at(row_{c}, packet * 64u + {s}u * (64u / SCALES));
        late &= bitcast<u32>(scale_{c}_{s});
#endfor
        // Numbers of even and odd pairs, a byte each.
        let even_{c} = bits_{c} & vec2<u32>(0x0f0f0f0fu);
        let odd_{c} = (bits_{c} >> vec2<u32>(4u)) & vec2<u32>(0x0f0f0f0fu);
#endfor
        let own = lane.thread | late;
#for s SCALES
        {
#for c COLUMNS
            var part_{c} = 0.0;
#endfor
#for e SPAN_CHUNKS
            {
                const h = {s}u * SPAN_CHUNKS + {e}u;
#for q 4
                let k_{q} = packet * 64u + h * 16u + {q}u * 4u;
                let x_{q} = select(vec4<TA>(), load_quad(0u, k_{q}), k_{q} < params.k);
                table[{q}u * STEP][own] = x_{q}.xy;
                table[{q}u * STEP + 4u][own] = x_{q}.xz;
                table[{q}u * STEP + 5u][own] = x_{q}.yz;
                table[{q}u * STEP + 8u][own] = x_{q}.xw;
                table[{q}u * STEP + 9u][own] = x_{q}.yw;
                table[{q}u * STEP + 10u][own] = x_{q}.zw;
#endfor
#for c COLUMNS
                part_{c} = product(kept_eight(w_{c}, h), even_{c}[h / 2u] >> (h % 2u * 16u), odd_{c}[h / 2u] >> (h % 2u * 16u), own, part_{c});
#endfor
            }
#endfor
#for c COLUMNS
            sum_{c} += scale_{c}_{s} * part_{c};
#endfor
        }
#endfor
    }
    let lo = vec4<f32>(sum_0, sum_1, sum_2, sum_3);
    let hi = vec4<f32>(sum_4, sum_5, sum_6, sum_7);
    let folded = fold(lo, hi, lane);
    if lane.subgroup_lane < 8u { partial[lane.subgroup * 8u + lane.subgroup_lane] = folded; }
    workgroupBarrier();
    let c = lane.thread;
    if c < COLUMNS && first + c < params.n {
        var sum = 0.0;
        for (var s = 0u; s < lane.subgroups; s++) { sum += partial[s * 8u + c]; }
        finish(sum * CODE_UNIT, 0u, first + c);
    }
}

// Eight kept values times what the four pairs pick, added to a sum.
fn product(v: Eight, even: u32, odd: u32, own: u32, sum: f32) -> f32 {
    let zero = vec4<f32>(FIXED_ZERO / CODE_UNIT);
    let lo = v.lo - zero;
    let hi = v.hi - zero;
    let x0 = vec2<f32>(table[even & 0xffu][own]);
    let x1 = vec2<f32>(table[STEP + (odd & 0xffu)][own]);
    let x2 = vec2<f32>(table[2u * STEP + ((even >> 8u) & 0xffu)][own]);
    let x3 = vec2<f32>(table[3u * STEP + ((odd >> 8u) & 0xffu)][own]);
    let low = fma(lo.w, x1.y, fma(lo.z, x1.x, fma(lo.y, x0.y, fma(lo.x, x0.x, sum))));
    return fma(hi.w, x3.y, fma(hi.z, x3.x, fma(hi.y, x2.y, fma(hi.x, x2.x, low))));
}
