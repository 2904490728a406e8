// out[1,N] = epilogue(a[1,K] · w[N,K]ᵀ), w 2:4-sparse of 4-bit codes, in workgroups that stay. A subgroup takes a row of w at a time, its lanes
// EACH packets (16 bytes of kept codes, 64 columns), loaded a row ahead. All share a table of the pairs of activations that positions
// can pick, six for each four columns, so that a pair of positions is one load and two codes are one multiply-add of halves. Entries lie
// [entry][lane], so that gathering never conflicts. Pairs are numbered as in common/sparse_walk.wgsl.
// Rows longer than the table go through it in slices; their sums wait in workgroup memory.
// Instructions bound it, so addresses are as the machine has them: a shift, and one operation that masks a number and adds the lane.
enable f16;
//!include "common/grid.wgsl"
//!include "common/lane.wgsl"
//!include "common/weight.wgsl"
//!include "common/activation.wgsl"
//!include "common/sparse.wgsl"
//!include "common/bits_as_halves.wgsl"
//!include "common/rate.wgsl"
//!include "common/half_rate.wgsl"
//!include "common/touch.wgsl"

const SUBGROUPS = THREADS / 32u;
const LANES = EACH * 32u; // packets of a slice
const QUAD = 11u * LANES + 2u; // entries of four columns, and two words so that filling does not conflict either
var<workgroup> table: array<array<vec2<f16>, QUAD>, 16>;
var<workgroup> units: array<f32, LANES>; // of the activations of each packet
var<workgroup> partial: array<f32, MOST_ROWS>;

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let lane = lane_of(place);
    // group_index() and a count of groups written out: naga takes the result of a call for non-uniform.
    let index = place.group.y * place.groups.x + place.group.x;
    let stride = place.groups.x * place.groups.y * SUBGROUPS;
    // Before the weights, as the table is what all wait for.
#for i FILLS
    let quad_{i} = {i}u * THREADS + lane.thread;
    var x_{i} = load_quad(0u, quad_{i} * 4u);
#endfor
    // Past the end of a row its last packet stands for those that are not there, times activations of zero.
    let last = params.packets - 1u;
    let first = min(index * SUBGROUPS + lane.subgroup, params.n - 1u);
#for e EACH
    let lane_{e} = {e}u * 32u + lane.subgroup_lane;
    let own_{e} = min(lane_{e}, last);
    var w_{e} = w[first * params.packets + own_{e}];
    var bits_{e} = indices[first * params.packets + own_{e}];
    var scales_{e} = packet_scales(first, own_{e});
#endfor
    var slice = 0u;
    loop {
#for i FILLS
        fill(quad_{i}, select(vec4<f16>(), x_{i}, slice * 64u + quad_{i} * 4u < params.k));
#endfor
        workgroupBarrier();
#for e EACH
        let unit_{e} = units[lane_{e}];
#endfor
        var at = lane.subgroup;
        for (var block = index * SUBGROUPS; block < params.n; block += stride) {
            let ends = block + stride >= params.n;
            let next_slice = select(slice, slice + LANES, ends);
            let next = min(select(block + stride, index * SUBGROUPS, ends) + lane.subgroup, params.n - 1u);
#for e EACH
            let next_own_{e} = min(next_slice + lane_{e}, last);
            let next_w_{e} = w[next * params.packets + next_own_{e}];
            let next_bits_{e} = indices[next * params.packets + next_own_{e}];
            let next_scales_{e} = packet_scales(next, next_own_{e});
#endfor
            // Zero; so that the compiler does not put off the next loads until they are used.
            var sum = select(0.0, 1.0, never(0u
#for e EACH
                | next_bits_{e}.x
#endfor
            ));
#for e EACH
            {
                var all = 0.0;
#for s SCALES
                var part_{s} = 0.0;
#for h SPAN_CHUNKS
                {
                    const h = {s}u * SPAN_CHUNKS + {h}u;
                    let four = product(w_{e}[h], bits_{e}[h / 2u], h, lane_{e} * 4u);
                    part_{s} += f32(four.x) + f32(four.y);
                }
#endfor
                all += scales_{e}[{s}] * part_{s};
#endfor
                sum += all * unit_{e};
            }
#endfor
#for s 5
            sum += subgroupShuffleXor(sum, 1u << {s}u);
#endfor
            let row = block + lane.subgroup;
            if lane.subgroup_lane == 0u && row < params.n {
                if slice > 0u { sum += partial[at]; }
                if slice + LANES < params.packets { partial[at] = sum; } else { finish(sum * CODE_UNIT, 0u, row); }
            }
            at += SUBGROUPS;
#for e EACH
            w_{e} = next_w_{e};
            bits_{e} = next_bits_{e};
            scales_{e} = next_scales_{e};
#endfor
        }
        slice += LANES;
        if slice >= params.packets { break; }
#for i FILLS
        x_{i} = load_quad(0u, slice * 64u + quad_{i} * 4u);
#endfor
        workgroupBarrier();
    }
}

// The table's entries of a slice's `quad`th four columns. Neighbouring threads have neighbouring ones, sixteen of which are a packet's.
fn fill(quad: u32, x: vec4<f16>) {
    let size = select(vec4<f16>(), abs(x), abs(x) <= vec4<f16>(65504.0h)); // what is no number stays so at any rate
    var top = f32(max(max(size.x, size.y), max(size.z, size.w)));
#for s 4
    top = max(top, subgroupShuffleXor(top, 1u << {s}u));
#endfor
    let rate = half_rate(top, TOP);
    let y = times_rate(x, rate);
    let q = quad % 16u;
    let l = quad / 16u;
    if l < LANES {
        table[q][l] = y.xy;
        table[q][l + 4u * LANES] = y.xz;
        table[q][l + 5u * LANES] = y.yz;
        table[q][l + 8u * LANES] = y.xw;
        table[q][l + 9u * LANES] = y.yw;
        table[q][l + 10u * LANES] = y.zw;
        if q == 0u { units[l] = inverse(rate); }
    }
}

// Eight kept codes, the `h`th chunk of a packet, times what four pairs of positions pick: sums of four products. `own` is 4 times the lane.
fn product(word: u32, bits: u32, h: u32, own: u32) -> vec2<f16> {
#for j 4
    let x_{j} = table[4u * h + {j}u][(number(bits, h % 2u * 4u + {j}u) | own) / 4u];
#endfor
    return fma(pair(word, 3u), x_3, fma(pair(word, 2u), x_2, fma(pair(word, 1u), x_1, pair(word, 0u) * x_0)));
}

// The number of the `i`th pair, times the bytes of as many entries as there are lanes: 256.
fn number(bits: u32, i: u32) -> u32 {
    return select(bits >> (max(4u * i, 8u) - 8u), bits << (8u - min(4u * i, 8u)), i < 2u) & (15u * 4u * LANES);
}

// Of eight kept codes numbers 2i and 2i + 1, in units of CODE_UNIT. TOP: activations up to twice 2^TOP neither vanish nor overflow in products.
#if WEIGHT == int4
const TOP = 14u;
fn pair(word: u32, i: u32) -> vec2<f16> {
    return two_halves((word >> (4u * i)) & 0x000f000fu) - vec2<f16>(f16(FIXED_ZERO / CODE_UNIT));
}
#else
const TOP = 8u;
fn pair(word: u32, i: u32) -> vec2<f16> { return two_halves(pairs(word)[i]); }
#endif

fn packet_scales(row: u32, packet: u32) -> vec4<f32> {
    var all = vec4<f32>();
#if SCALE_PAIRS
    let two = unpack2x16float(scales[row * params.groups / 2u + packet]);
    all.x = two.x;
    all.y = two.y;
#else
#for s SCALES
    all[{s}] = scale_at(row, packet * 64u + {s}u * (64u / SCALES));
#endfor
#endif
    return all;
}
