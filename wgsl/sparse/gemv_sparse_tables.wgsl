// out[1,N] = epilogue(a[1,K] · w[N,K]ᵀ), w 2:4-sparse of 4-bit codes, in workgroups that stay. A subgroup takes a row of w at a time, its lanes
// EACH packets (16 bytes of kept codes, 64 columns), loaded a row ahead. All share a table of the pairs of activations that positions
// can pick, six for each four columns, so that a pair of positions is one load and two codes are one multiply-add of halves. Entries lie
// [entry][lane], so that gathering never conflicts. Pairs are numbered as in common/sparse_walk.wgsl.
// Rows longer than the table go through it in slices; their sums wait in workgroup memory. Sums that are ready wait in registers, one a lane, so
// that up to 32 rows are finished at once.
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
//!include "common/asked.wgsl"

const SUBGROUPS = THREADS / 32u;
const LANES = EACH * 32u; // packets of a slice
#if SCALE_PAIRS
const SCALE_WORDS = 1u;
#else
const SCALE_WORDS = SCALES;
#endif
// Entries of even fours of columns are LANES words apart, those of odd ones ODD_STEP, so that two neighbouring numbers are found with one shift.
// The even ones fill what the odd ones leave, and two words from one four to the next keep filling free of conflicts.
const ODD_STEP = 16u * LANES;
const ODD_FOUR = LANES + 2u;
const EVEN_FOUR = 11u * LANES + 2u;
const EVEN_FIRST = 8u * ODD_FOUR;
const FIRST_EVENS = 5u; // and then three more, behind entries 5 of the odd ones
const EVEN_SECOND = 5u * ODD_STEP + EVEN_FIRST + 2u * FIRST_EVENS;
const ENTRIES = 10u * ODD_STEP + 8u * ODD_FOUR;
var<workgroup> table: array<vec2<f16>, ENTRIES>;
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
    var own_{e} = min(lane_{e}, last);
    var w_{e} = w[first * params.packets + own_{e}];
    var bits_{e} = indices[first * params.packets + own_{e}];
    var scales_{e} = scale_words(first, own_{e});
#endfor
    var kept = 0.0; // sums that are not finished yet, one a lane
    var keeps = 0u; // so many
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
            let row = min(block + lane.subgroup, params.n - 1u);
            let ends = block + stride >= params.n;
            let next = min(block + stride + lane.subgroup, params.n - 1u);
#for e EACH
            let next_w_{e} = w[next * params.packets + own_{e}];
            let next_bits_{e} = indices[next * params.packets + own_{e}];
            let next_scales_{e} = scale_words(next, own_{e});
#endfor
            if block >= params.n_all { // never: of those there are n at least
                units[0] = used(0u
#for e EACH
                    ^ next_w_{e}.x ^ next_bits_{e}.x ^ next_scales_{e}[0]
#endfor
                );
            }
            var sum = 0.0;
#for e EACH
            {
                let own_scales = packet_scales(scales_{e}, row, own_{e});
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
                all += own_scales[{s}] * part_{s};
#endfor
                sum += all * unit_{e};
            }
#endfor
            // Of earlier slices; by the lane that has left it there.
            if slice > 0u && lane.subgroup_lane == 0u { sum += partial[at]; }
#for s 5
            sum += subgroupShuffleXor(sum, 1u << {s}u);
#endfor
            let waits = slice + LANES < params.packets;
            if waits && lane.subgroup_lane == 0u { partial[at] = sum; }
            at += SUBGROUPS;
            if !waits {
                kept = select(kept, sum, lane.subgroup_lane == keeps);
                keeps++;
                if keeps == 32u || ends {
                    let own_row = block - (keeps - 1u - lane.subgroup_lane) * stride + lane.subgroup;
                    if lane.subgroup_lane < keeps && own_row < params.n { finish(kept * CODE_UNIT, 0u, own_row); }
                    keeps = 0u;
                }
            }
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
#for e EACH
        own_{e} = min(slice + lane_{e}, last);
        w_{e} = w[first * params.packets + own_{e}];
        bits_{e} = indices[first * params.packets + own_{e}];
        scales_{e} = scale_words(first, own_{e});
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
        let at = start_of(q) + l;
        let step = step_of(q);
        table[at] = y.xy;
        table[at + 4u * step] = y.xz;
        table[at + 5u * step] = y.yz;
        table[at + 8u * step] = y.xw;
        table[at + 9u * step] = y.yw;
        table[at + 10u * step] = y.zw;
        if q == 0u { units[l] = inverse(rate); }
    }
}

// Eight kept codes, the `h`th chunk of a packet, times what four pairs of positions pick: sums of four products. `own` is 4 times the lane.
fn product(word: u32, bits: u32, h: u32, own: u32) -> vec2<f16> {
#for j 4
    let x_{j} = table[start_of({j}u + 4u * h) + (number(bits, h % 2u * 4u + {j}u) | own) / 4u];
#endfor
    return fma(pair(word, 3u), x_3, fma(pair(word, 2u), x_2, fma(pair(word, 1u), x_1, pair(word, 0u) * x_0)));
}

// Where the entries of a packet's `q`th four columns start, and how far they are apart.
fn start_of(q: u32) -> u32 {
    let nth = q / 2u;
    let even = select(EVEN_SECOND - FIRST_EVENS * EVEN_FOUR, EVEN_FIRST, nth < FIRST_EVENS) + nth * EVEN_FOUR;
    return select(even, nth * ODD_FOUR, q % 2u == 1u);
}
fn step_of(q: u32) -> u32 { return select(LANES, ODD_STEP, q % 2u == 1u); }

// The number of the `i`th pair, times the bytes between entries: 2⁸ or 2¹².
fn number(bits: u32, i: u32) -> u32 {
    const BYTE = 8u;
    let shift = i / 2u * BYTE;
    let shifted = select(bits >> (max(shift, BYTE) - BYTE), bits << BYTE, i < 2u);
    return shifted & select(15u * 4u * LANES, 15u * 4u * ODD_STEP, i % 2u == 1u);
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

// The words of a packet's scales, as they come, and the scales.
fn scale_words(row: u32, packet: u32) -> array<u32, SCALE_WORDS> {
    var words: array<u32, SCALE_WORDS>;
#if SCALE_PAIRS
    words[0] = scales[row * params.groups / 2u + packet];
#else
#for s SCALES
    words[{s}] = scales[scale_place(row, packet * 64u + {s}u * (64u / SCALES)) / 2u];
#endfor
#endif
    return words;
}
fn packet_scales(words: array<u32, SCALE_WORDS>, row: u32, packet: u32) -> vec4<f32> {
    var all = vec4<f32>();
#if SCALE_PAIRS
    let two = unpack2x16float(words[0]);
    all.x = two.x;
    all.y = two.y;
#else
#for s SCALES
    all[{s}] = half_of(words[{s}], scale_place(row, packet * 64u + {s}u * (64u / SCALES)));
#endfor
#endif
    return all;
}
