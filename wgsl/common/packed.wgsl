// A part of the rows of a weight in GPU memory: its bindings and loads. Needs weight.wgsl before it, HALF_SCALES (scales
// are bound as f16), PACKET_WORDS and `params` with
//     packets       packets in a row
//     groups        scales in a row
//     group_shift   log2 of the group, 31 for one group a row
#if PACKET_WORDS == 3
@group(0) @binding(1) var<storage, read> w: array<u32>;
#elif PACKET_WORDS == 2
@group(0) @binding(1) var<storage, read> w: array<vec2<u32>>;
#else
@group(0) @binding(1) var<storage, read> w: array<vec4<u32>>;
#endif
#if HALF_SCALES
@group(0) @binding(2) var<storage, read> scales: array<f16>;
#else
@group(0) @binding(2) var<storage, read> scales: array<u32>;
#endif
@group(0) @binding(3) var<storage, read> zeros: array<u32>;

fn load_packet(row: u32, packet: u32) -> Packet {
    let at = row * params.packets + packet;
#if WEIGHT == f32
    return Packet(w[2u * at], w[2u * at + 1u]);
#elif PACKET_WORDS == 3
    return vec4<u32>(w[3u * at], w[3u * at + 1u], w[3u * at + 2u], 0u);
#elif PACKET_WORDS == 2
    return vec4<u32>(w[at], 0u, 0u);
#else
    return w[at];
#endif
}

// Scales in a word.
#if SCALE_FORMAT == f16
const WORD_SCALES = 2u;
#else
const WORD_SCALES = 4u;
#endif

fn load_scale(row: u32, group: u32) -> f32 {
#if SCALE_FORMAT == none
    return 1.0;
#else
    let at = row * params.groups + group;
#if HALF_SCALES
    return f32(scales[at]);
#elif SCALE_FORMAT == e4m3
    return scale_of(scales[at / WORD_SCALES], at) * bitcast<f32>(zeros[row]);
#else
    return scale_of(scales[at / WORD_SCALES], at);
#endif
#endif
}
// The scale that is at `at`, of the word that it lies in, but for that of the tensor.
fn scale_of(word: u32, at: u32) -> f32 {
#if SCALE_FORMAT == f16
    return half_of(word, at);
#else
    let byte = (word >> ((at & 3u) * 8u)) & 0xffu;
#if SCALE_FORMAT == e4m3
    return unpack2x16float(byte << 7u).x * 256.0; // see weight/e4m3.wgsl
#else
    return bitcast<f32>(byte << 23u);
#endif
#endif
}

fn load_zero(row: u32, group: u32) -> f32 {
#if STORED_ZEROS
    let at = row * params.groups + group;
    return half_of(zeros[at >> 1u], at);
#else
    return FIXED_ZERO;
#endif
}

// The group of column `k`; past the row's end the last one.
fn scale_group(k: u32) -> u32 {
    return min(k >> params.group_shift, max(params.groups, 1u) - 1u);
}

// A packet's chunk decoded, of which no other word is loaded.
fn decode_at(row: u32, packet: u32, chunk: u32) -> Eight {
    let at = row * params.packets + packet;
#if PACKET_WORDS == 3
    let word = 3u * at + 3u * chunk / 4u;
    return decode_bits(between(w[word], w[min(word + 1u, 3u * at + 2u)], chunk));
#elif PACKET_WORDS == 2
    return decode(Packet(w[at][chunk / 2u], 0u, 0u, 0u), chunk % 2u);
#elif PACKET == 32
    return decode(Packet(w[at][chunk], 0u, 0u, 0u), 0u);
#elif PACKET == 16
    return decode(Packet(w[at][2u * chunk], w[at][2u * chunk + 1u], 0u, 0u), 0u);
#else
    return decode(load_packet(row, packet), chunk);
#endif
}

// Eight weights of a row from column `k` (a multiple of 8); past the row's end whatever its last packet holds.
fn weight_eight(row: u32, k: u32) -> Eight {
    let packet = min(k / PACKET, params.packets - 1u);
    let v = decode_at(row, packet, (k / 8u) % CHUNKS);
    let group = scale_group(k);
    // Products of halves have 22 bits and those of codes fewer: only the sum rounds, fused or not.
    let scale = load_scale(row, group);
    let offset = vec4<f32>(-load_zero(row, group) * scale);
    let unit = vec4<f32>(CODE_UNIT * scale);
    return Eight(fma(v.lo, unit, offset), fma(v.hi, unit, offset));
}
