// One row of a times a block of w, on cooperative matrices of what each thread holds (common/fragment.wgsl): a code is no more than masked,
// as its bits are the half that matrices take. A block is 16 rows of w and eight packets of each. Four neighbouring lanes hold four
// neighbouring packets of a row, in A. B has a column for each packet, with zeros where it meets the others, so that sums under different
// scales stay apart: eight columns for the eight packets, of which two matrices A hold four each. Where one of these meets the columns of
// the other, what comes out is not used. Lane 4·i + j is `own`: (i, j).
const BLOCK = 8u; // packets of a row
const STEP = SIDE;
const SUM_UNIT = CODE_UNIT;

// What a lane has of it: packets j and j + 4 of rows i and i + 8, and for each row the word with the scales of packets 2j and 2j + 1.
struct Block {
#for h 2
#for s 2
    w_{h}_{s}: vec4<u32>,
#endfor
    scale_{h}: u32,
#endfor
}
// And of the activations: packet i, if j has it in A, else zeros; and for each of packets 2j and 2j + 1 what codes' zeros have added to its sum.
struct Eights {
#for c PACKET_CHUNKS
    x_{c}: vec4<u32>,
#endfor
    zeros: vec2<f32>,
}

fn scales_at(row: u32, packet: u32) -> u32 {
    return row * params.groups + scale_group(packet * PACKET);
}
fn two_scales(word: u32, at: u32) -> vec2<f32> {
#if SCALE_PAIRS
    return unpack2x16float(word);
#else
    return vec2<f32>(half_of(word, at));
#endif
}

// Rows past the end are computed, not stored. Past the end of a row its last packet stands for those that are not there.
fn row_of(first: u32, h: u32, own: vec2<u32>) -> u32 { return min(first + h * 8u + own.x, params.n - 1u); }
fn pair_of(packet: u32, own: vec2<u32>) -> u32 { return min(packet + 2u * own.y, (params.packets - 1u) & ~1u); }

// The block from row `first` and packet `packet` on.
fn ask(first: u32, packet: u32, own: vec2<u32>) -> Block {
#for h 2
    let row_{h} = row_of(first, {h}u, own);
#for s 2
    let w_{h}_{s} = load_packet(row_{h}, min(packet + {s}u * 4u + own.y, params.packets - 1u));
#endfor
    let scale_{h} = scales[scales_at(row_{h}, pair_of(packet, own)) / 2u];
#endfor
    return Block(w_0_0, w_0_1, scale_0, w_1_0, w_1_1, scale_1);
}

// Of rows i and i + 8 the products with packets 2j and 2j + 1.
fn take(b: Block, x: Eights, first: u32, packet: u32, own: vec2<u32>) -> vec2<f32> {
    let zeros = vec4<f16>();
#for s 2
    var low_{s} = MatC();
#if INTEGERS
    var high_{s} = MatC();
#endif
#endfor
#for c PACKET_CHUNKS
    {
        let x_low = fragment_b(four_halves(x.x_{c}.x, x.x_{c}.y), zeros);
        let x_high = fragment_b(four_halves(x.x_{c}.z, x.x_{c}.w), zeros);
#for s 2
        let near_{s} = bare_halves(b.w_0_{s}, {c}u);
        let far_{s} = bare_halves(b.w_1_{s}, {c}u);
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
    let scales_{h} = two_scales(b.scale_{h}, scales_at(row_of(first, {h}u, own), pair_of(packet, own)));
#for p 2
    var part_{h}_{p} = select(sums_0[{h} * 4 + {p}], sums_1[{h} * 4 + {p}], own.y >= 2u);
#if INTEGERS
    part_{h}_{p} += select(more_0[{h} * 4 + {p}], more_1[{h} * 4 + {p}], own.y >= 2u) / HIGH - x.zeros[{p}];
#endif
#endfor
#endfor
    return vec2<f32>(scales_0.x * part_0_0 + scales_0.y * part_0_1, scales_1.x * part_1_0 + scales_1.y * part_1_1);
}

// Over the lanes of a row: of lanes j = 0 the sum of row i, of j = 1 that of row i + 8.
fn sum_of_row(sums: vec2<f32>, j: u32) -> f32 {
    let odd = (j & 1u) != 0u;
    let two = select(sums.x, sums.y, odd) + subgroupShuffleXor(select(sums.y, sums.x, odd), 1u);
    return two + subgroupShuffleXor(two, 2u);
}
