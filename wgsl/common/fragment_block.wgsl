// One row of a times a block of w, on cooperative matrices of what each thread holds (common/fragment.wgsl): a code is no more than masked,
// as its bits are the half that matrices take. A block is 16 rows of w and eight packets of each. Four neighbouring lanes hold four
// neighbouring packets of a row, in A. B has a column for each packet, with zeros where it meets the others, so that sums under different
// scales stay apart: eight columns for the eight packets, of which two matrices A hold four each. Where one of these meets the columns of
// the other, what comes out is not used. Lane 4·i + j is `own`: (i, j).
const BLOCK = 8u; // packets of a row
const STEP = SIDE;
#if SCALE_FORMAT == e4m3
const SUM_UNIT = CODE_UNIT * 256.0; // and that of E4M3's bits as halves
#else
const SUM_UNIT = CODE_UNIT;
#endif

// What a lane has of it: packets j and j + 4 of rows i and i + 8, and for each row the word with the scales of packets 2j and 2j + 1: of
// SPANS scales a packet.
struct Block {
#for h 2
#for s 2
    w_{h}_{s}: vec4<u32>,
#endfor
    scale_{h}: u32,
#endfor
#if SCALE_FORMAT == e4m3
    tensor: u32, // the scale of all of row i or, if j is odd, i + 8
#endif
}
// And of the activations: packet i, if j has it in A, else zeros; and for each of packets 2j and 2j + 1 what codes' zeros have added to its sum.
struct Eights {
#for g SPANS
#for c SPAN_CHUNKS
    x_{g}_{c}: vec4<u32>,
#endfor
#endfor
    zeros: vec2<f32>,
}

fn scales_at(row: u32, packet: u32) -> u32 {
    return row * params.groups + scale_group(packet * PACKET);
}
// Of the `g`th span of each of the two packets.
fn two_scales(word: u32, at: u32, g: u32) -> vec2<f32> {
#if SCALE_FORMAT == e4m3
    return unpack2x16float(select(word << 7u, word >> 1u, g == 1u) & 0x3f803f80u);
#elif SCALE_FORMAT == e8m0
    let two = word >> ((at & 2u) * 8u);
    return bitcast<vec2<f32>>(vec2<u32>(two << 23u, two << 15u) & vec2<u32>(0x7f800000u));
#elif SCALE_PAIRS
    return unpack2x16float(word);
#else
    return vec2<f32>(half_of(word, at));
#endif
}
// Rows past the end are computed, not stored.
fn row_of(first: u32, h: u32, own: vec2<u32>) -> u32 { return min(first + h * 8u + own.x, params.n - 1u); }

// Where in a row a lane has packets j, j + 4 and 2j of the block from `packet` on. Past the end of a row its last packet stands for those that are
// not there.
fn places_of(packet: u32, own: vec2<u32>) -> vec3<u32> {
    let last = params.packets - 1u;
    return min(packet + vec3<u32>(own.y, 4u + own.y, 2u * own.y), vec3<u32>(last, last, last & ~1u));
}

// The block of these places, from row `first` on.
fn ask(first: u32, places: vec3<u32>, own: vec2<u32>) -> Block {
#for h 2
    let row_{h} = row_of(first, {h}u, own);
#for s 2
    let w_{h}_{s} = load_packet(row_{h}, places[{s}]);
#endfor
    let scale_{h} = scales[scales_at(row_{h}, places.z) / WORD_SCALES];
#endfor
#if SCALE_FORMAT == e4m3
    return Block(w_0_0, w_0_1, scale_0, w_1_0, w_1_1, scale_1, zeros[row_of(first, own.y & 1u, own)]);
#else
    return Block(w_0_0, w_0_1, scale_0, w_1_0, w_1_1, scale_1);
#endif
}

// The sums of rows i and i + 8, and the products with packets 2j and 2j + 1.
fn take(sums: vec2<f32>, b: Block, x: Eights, first: u32, places: vec3<u32>, own: vec2<u32>) -> vec2<f32> {
    let zeros = vec4<f16>();
    var all = sums;
#for g SPANS
    {
#for s 2
        var low_{s} = MatC();
#if INTEGERS
        var high_{s} = MatC();
#endif
#endfor
#for c SPAN_CHUNKS
        {
            let x_low = fragment_b(four_halves(x.x_{g}_{c}.x, x.x_{g}_{c}.y), zeros);
            let x_high = fragment_b(four_halves(x.x_{g}_{c}.z, x.x_{g}_{c}.w), zeros);
#for s 2
            let near_{s} = bare_halves(b.w_0_{s}, {g}u * SPAN_CHUNKS + {c}u);
            let far_{s} = bare_halves(b.w_1_{s}, {g}u * SPAN_CHUNKS + {c}u);
#endfor
#for s 2
            let w_low_{s} = fragment_a(four_halves(near_{s}.x, near_{s}.y), four_halves(far_{s}.x, far_{s}.y));
            low_{s} = coopMultiplyAdd(w_low_{s}, x_low, low_{s});
#endfor
#for s 2
            let w_high_{s} = fragment_a(four_halves(near_{s}.z, near_{s}.w), four_halves(far_{s}.z, far_{s}.w));
#if INTEGERS
            high_{s} = coopMultiplyAdd(w_high_{s}, x_high, high_{s});
#else
            low_{s} = coopMultiplyAdd(w_high_{s}, x_high, low_{s});
#endif
#endfor
        }
#endfor
#for s 2
        let sums_{s} = elements_of(low_{s});
#if INTEGERS
        let more_{s} = elements_of(high_{s});
#endif
#endfor
#for h 2
        let scales_{h} = two_scales(b.scale_{h}, scales_at(row_of(first, {h}u, own), places.z), {g}u);
#for p 2
        {
            var part = select(sums_0[{h} * 4 + {p}], sums_1[{h} * 4 + {p}], own.y >= 2u);
#if INTEGERS
            part += select(more_0[{h} * 4 + {p}], more_1[{h} * 4 + {p}], own.y >= 2u) / HIGH - x.zeros[{p}];
#endif
            all[{h}] += scales_{h}[{p}] * part;
        }
#endfor
#endfor
    }
#endfor
    return all;
}

// Over the lanes of a row: of lanes j = 0 the sum of row i, of j = 1 that of row i + 8. `b`: a block of these rows.
fn sum_of_row(sums: vec2<f32>, b: Block, j: u32) -> f32 {
    let odd = (j & 1u) != 0u;
    let two = select(sums.x, sums.y, odd) + subgroupShuffleXor(select(sums.y, sums.x, odd), 1u);
    let sum = two + subgroupShuffleXor(two, 2u);
#if SCALE_FORMAT == e4m3
    return sum * bitcast<f32>(b.tensor);
#else
    return sum;
#endif
}
