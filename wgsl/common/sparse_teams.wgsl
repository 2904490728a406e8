// Any pattern, M ≤ ROWS_A: a team of LANES threads takes COLUMNS rows of w, 16 bytes of kept values and their positions a lane and
// step, loaded one step ahead. The activations of a chunk (eight kept values a lane) stand in a table in workgroup memory that all
// teams share, two buffers in turn. An entry holds one column for all rows of a or, for 2:4 and one row, the two activations that a pair of positions picks: one load for two
// products. Entries lie [entry][lane], so that a lane stays in banks of its own whatever its positions are: gathering never conflicts.
// Counted from the source for 2:4 FP4 and one row, per chunk of 8 kept values: decoding 8 conversions and 11 integer operations,
// 4 gathers of a pair with 3 integer operations each, 8 multiply-adds, 3 for scale and shift: 42 operations and 4 loads, 5¾ a kept
// value; the tables cost about ½ more, as all rows of the workgroup share them.
const QUADS = CHUNK_COLUMNS / 4u;         // of a lane's chunk
const PACKET_COLUMNS = CHUNK_COLUMNS * CHUNKS;
#if PAIRS
const QUAD_ENTRIES = 11u;                 // pairs of positions i + 4 (j - 1)
const WORKERS = 2u;                       // threads that fill a quad's entries: those with i = 0, the others
const ROW_STEP = 0u;
#else
const QUAD_ENTRIES = 4u;
const WORKERS = PLANES;
const ROW_STEP = 4u;                      // rows of a in an entry of a plane
#endif
const PLANE = QUADS * QUAD_ENTRIES * LANES;
const TABLE = PLANE * PLANES;
const ITEMS = LANES * QUADS * WORKERS;
var<workgroup> table: array<ENTRY, BUFFERS * TABLE>;
var<workgroup> partial: array<vec4<f32>, THREADS>;

@compute @workgroup_size(THREADS)
fn main(place: Place) {
    let where_ = lane_of(place);
#if SUBGROUP
    let thread = where_.subgroup * where_.subgroup_size + where_.subgroup_lane;
#else
    let thread = where_.thread;
#endif
    let lane = thread % LANES;
    let team = thread / LANES;
    let first = (group_index(place.group, place.groups) * (THREADS / LANES) + team) * COLUMNS;

    // What this thread puts into each table.
#for i ITEMS_EACH
    let item_{i} = {i}u * THREADS + thread;
    let worker_{i} = item_{i} / (LANES * QUADS) % WORKERS;
    let quad_{i} = item_{i} / LANES % QUADS;
    let to_{i} = quad_{i} * (QUAD_ENTRIES * LANES) + lane;
    let k_{i} = lane * PACKET_COLUMNS + quad_{i} * 4u;
#for m QUAD_ROWS
    let row_a_{i}_{m} = min({m}u + ROW_STEP * worker_{i}, params.m - 1u);
    var x_{i}_{m} = load_quad(row_a_{i}_{m}, k_{i});
#endfor
#endfor
#for c COLUMNS
    let row_{c} = min(first + {c}u, params.n - 1u); // past the end: computed, not stored
    var next_{c} = load_values(row_{c}, lane);
    var next_bits_{c} = load_bits(row_{c}, lane);
    var next_scale_{c}_0 = load_scales(row_{c}, lane, 0u);
#if SCALES == 8
    var next_scale_{c}_1 = load_scales(row_{c}, lane, 1u);
#endif
#for m ROWS_A
    var sum_{c}_{m} = 0.0;
#endfor
#endfor
    var flip = 0u;
    for (var packet = 0u; packet < params.packets; packet += LANES) {
        let ahead = packet + LANES + lane;
#for c COLUMNS
        let values_{c} = next_{c};
        let bits_{c} = next_bits_{c};
        let scale_{c}_0 = next_scale_{c}_0;
        next_{c} = load_values(row_{c}, ahead);
        next_bits_{c} = load_bits(row_{c}, ahead);
        next_scale_{c}_0 = load_scales(row_{c}, ahead, 0u);
#if SCALES == 8
        let scale_{c}_1 = next_scale_{c}_1;
        next_scale_{c}_1 = load_scales(row_{c}, ahead, 1u);
#endif
#endfor
#for h CHUNKS_PER_PACKET
        {
#if BUFFERS == 1
            workgroupBarrier();
#endif
            let k0 = packet * PACKET_COLUMNS + {h}u * CHUNK_COLUMNS;
            // The columns that follow: the next chunk's, or the first of the next packets.
            let k1 = k0 + select(CHUNK_COLUMNS, PACKET_COLUMNS * LANES - (CHUNKS - 1u) * CHUNK_COLUMNS, {h}u + 1u == CHUNKS);
#for i ITEMS_EACH
            if ITEMS % THREADS == 0u || item_{i} < ITEMS {
#for m QUAD_ROWS
                let q_{m} = inside(x_{i}_{m}, k0 + k_{i});
#endfor
                let to = flip + to_{i};
#if PAIRS
                if worker_{i} == 0u {
                    table[to] = q_0.xy;
                    table[to + 4u * LANES] = q_0.xz;
                    table[to + 8u * LANES] = q_0.xw;
                } else {
                    table[to + 5u * LANES] = q_0.yz;
                    table[to + 9u * LANES] = q_0.yw;
                    table[to + 10u * LANES] = q_0.zw;
                }
#else
#for e 4
#if ROWS_A == 1
                table[to + {e}u * LANES] = q_0[{e}];
#elif ROWS_A == 2
                table[to + {e}u * LANES] = vec2<f32>(q_0[{e}], q_1[{e}]);
#else
                table[to + worker_{i} * PLANE + {e}u * LANES] = vec4<f32>(q_0[{e}], q_1[{e}], q_2[{e}], q_3[{e}]);
#endif
#endfor
#endif
            }
#for m QUAD_ROWS
            x_{i}_{m} = load_quad(row_a_{i}_{m}, k1 + k_{i});
#endfor
#endfor
            workgroupBarrier();
            let base = flip + lane;
#for c COLUMNS
            {
                let v = kept_eight(values_{c}, {h}u);
                let half_0 = v.lo - vec4<f32>(ZERO);
                let half_1 = v.hi - vec4<f32>(ZERO);
                let bits = chunk_bits(bits_{c}, {h}u);
#for s 2
#for m ROWS_A
                var part_{s}_{m} = 0.0;
#endfor
#if PAIRS
#for j 2
                let pick_{s}_{j} = table[base + (2u * {s}u + {j}u) * (QUAD_ENTRIES * LANES) + ((bits >> (8u * {s}u + 4u * {j}u)) & (15u * LANES))];
                part_{s}_0 = fma(half_{s}[2u * {j}u], pick_{s}_{j}.x, part_{s}_0);
                part_{s}_0 = fma(half_{s}[2u * {j}u + 1u], pick_{s}_{j}.y, part_{s}_0);
#endfor
#else
#for j 4
                let at_{s}_{j} = base + home(4u * {s}u + {j}u) + ((bits >> ((4u * {s}u + {j}u) * INDEX_BITS)) & ((BLOCK - 1u) * LANES));
                let pick_{s}_{j} = table[at_{s}_{j}];
#if ROWS_A == 1
                part_{s}_0 = fma(half_{s}[{j}u], pick_{s}_{j}, part_{s}_0);
#elif ROWS_A == 2
                part_{s}_0 = fma(half_{s}[{j}u], pick_{s}_{j}.x, part_{s}_0);
                part_{s}_1 = fma(half_{s}[{j}u], pick_{s}_{j}.y, part_{s}_1);
#else
#for m 4
                part_{s}_{m} = fma(half_{s}[{j}u], pick_{s}_{j}[{m}u], part_{s}_{m});
#endfor
#if ROWS_A == 8
                let more_{s}_{j} = table[at_{s}_{j} + PLANE];
                part_{s}_4 = fma(half_{s}[{j}u], more_{s}_{j}.x, part_{s}_4);
                part_{s}_5 = fma(half_{s}[{j}u], more_{s}_{j}.y, part_{s}_5);
                part_{s}_6 = fma(half_{s}[{j}u], more_{s}_{j}.z, part_{s}_6);
                part_{s}_7 = fma(half_{s}[{j}u], more_{s}_{j}.w, part_{s}_7);
#endif
#endif
#endfor
#endif
#endfor
#for m ROWS_A
#if SCALES == 8
                sum_{c}_{m} += scale_{c}_0[{h}u] * part_0_{m} + scale_{c}_1[{h}u] * part_1_{m};
#else
                sum_{c}_{m} += scale_{c}_0[{h}u * SCALES / 4u] * (part_0_{m} + part_1_{m});
#endif
#endfor
            }
#endfor
            flip = (BUFFERS - 1u) * TABLE - flip;
        }
#endfor
    }
#for m ROWS_A
#if COLUMNS == 2
    let all_{m} = team_sum(vec4<f32>(sum_0_{m}, sum_1_{m}, 0.0, 0.0), thread, where_);
#else
    let all_{m} = team_sum(vec4<f32>(sum_0_{m}, sum_1_{m}, sum_2_{m}, sum_3_{m}), thread, where_);
#endif
    if lane == 0u && {m}u < params.m {
#for c COLUMNS
        if first + {c}u < params.n { finish(all_{m}[{c}u] * CODE_UNIT, {m}u, first + {c}u); }
#endfor
    }
#endfor
}

// Codes' zero point in decode()'s unit: an exact subtraction.
const ZERO = FIXED_ZERO / CODE_UNIT;

// Where the table keeps the block of the `j`th kept value of a chunk; for 2:4 second positions are one less than they are.
fn home(j: u32) -> u32 {
    return (j / KEPT * BLOCK + select(0u, j % 2u, BLOCK / KEPT == 2u && BLOCK == 4u)) * LANES;
}

fn load_values(row: u32, packet: u32) -> Packet {
    return w[row * params.packets + min(packet, params.packets - 1u)];
}

// Positions of a packet as a string of bits; chunk_bits() brings a chunk's to the units of the table, with bits of others above.
#if CHUNKS_PER_PACKET == 4
#if BLOCK == 4
fn load_bits(row: u32, packet: u32) -> vec2<u32> {
    return indices[row * params.packets + min(packet, params.packets - 1u)];
}
fn chunk_bits(bits: vec2<u32>, h: u32) -> u32 {
    return select(bits[h / 2u] << LOG_LANES, bits[h / 2u] >> (16u - LOG_LANES), h % 2u == 1u);
}
#else
fn load_bits(row: u32, packet: u32) -> vec3<u32> {
    let at = row * params.index_words + 3u * min(packet, params.packets - 1u);
    return vec3<u32>(indices[at], indices[at + 1u], indices[at + 2u]);
}
fn chunk_bits(bits: vec3<u32>, h: u32) -> u32 {
    switch h {
        case 0u: { return bits.x << LOG_LANES; }
        case 1u: { return ((bits.x >> 24u) | (bits.y << 8u)) << LOG_LANES; }
        case 2u: { return ((bits.y >> 16u) | (bits.z << 16u)) << LOG_LANES; }
        default: { return (bits.z >> 8u) << LOG_LANES; }
    }
}
#endif
#else
fn load_bits(row: u32, packet: u32) -> u32 {
    let bit = min(packet, params.packets - 1u) * (8u * INDEX_BITS);
    let at = row * params.index_words + bit / 32u;
    let low = indices[at] >> (bit % 32u);
#if BLOCK == 4
    return low;
#else
    // A string of 24 bits may end in the next word, which then exists.
    let more = bit % 32u > 8u;
    let next = indices[at + select(0u, 1u, more)];
    return select(low, low | (next << ((32u - bit) % 32u)), more);
#endif
}
fn chunk_bits(bits: u32, h: u32) -> u32 {
    return bits << LOG_LANES;
}
#endif

// Scales of a packet: SCALES of them, by quarters; with 8 those of the first (`part` 0) or second half of each chunk.
fn load_scales(row: u32, packet: u32, part: u32) -> vec4<f32> {
    let k = packet * PACKET_COLUMNS;
    var all = vec4<f32>(1.0);
#if QUANTISED
#if SCALES == 8
#for h 4
    all[{h}] = scale_at(row, k + (2u * {h}u + part) * (CHUNK_COLUMNS / 2u));
#endfor
#else
#for i SCALES
    all[{i}] = scale_at(row, k + {i}u * (PACKET_COLUMNS / SCALES));
#endfor
#endif
#endif
    return all;
}

// The sum over the team, for its first thread.
fn team_sum(value: vec4<f32>, thread: u32, where_: Lane) -> vec4<f32> {
    let lane = thread % LANES;
    var sum = value;
#if SUBGROUP
    // Halves of what a subgroup has of the team, then the subgroups' shares through workgroup memory.
    let span = min(LANES, where_.subgroup_size);
    for (var step = span / 2u; step > 0u; step >>= 1u) { sum += subgroupShuffleXor(sum, step); }
    workgroupBarrier();
    if lane % span == 0u { partial[thread] = sum; }
    workgroupBarrier();
    if lane == 0u {
        for (var i = span; i < LANES; i += span) { sum += partial[thread + i]; }
    }
#else
    workgroupBarrier();
    partial[thread] = sum;
    for (var step = LANES / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier();
        if lane < step { partial[thread] += partial[thread + step]; }
    }
    if lane == 0u { sum = partial[thread]; }
#endif
    return sum;
}
