//! Faults planted in copies of our own kernels, to prove that the net holds.

/// One change of a kernel's text, and what must come of it.
pub struct Fault {
    pub name: &'static str,
    pub kernel: &'static str,
    /// Part of the label of the case that shows it.
    pub case: &'static str,
    /// What is replaced, once, by what.
    pub changes: &'static [(&'static str, &'static str)],
    /// Kinds of complaints of which there must be one. `wrong` stands for outputs that differ from the twin's.
    pub caught_as: &'static [&'static str],
    /// Only where matrices lie in registers in another way.
    pub alt_layout: bool,
}

const fn gemm(
    name: &'static str,
    changes: &'static [(&'static str, &'static str)],
    caught_as: &'static [&'static str],
) -> Fault {
    Fault { name, kernel: "qgemm", case: "20×64→40 int4 g32", changes, caught_as, alt_layout: false }
}

/// Two tiles of rows, and of keys; the last of both are ragged.
const fn attention(
    name: &'static str,
    changes: &'static [(&'static str, &'static str)],
    caught_as: &'static [&'static str],
) -> Fault {
    let case = "2×33 over 37/37, heads 3/1×80";
    Fault { name, kernel: "attention", case, changes, caught_as, alt_layout: false }
}

/// Four tiles of rows, the last ragged; two SIMD-groups have keys.
const fn decode(
    name: &'static str,
    changes: &'static [(&'static str, &'static str)],
    caught_as: &'static [&'static str],
) -> Fault {
    let case = "2×5 over 37/37, heads 3/1×80";
    Fault { name, kernel: "attention_decode", case, changes, caught_as, alt_layout: false }
}

const BARRIER: &str = "threadgroup_barrier(mem_flags::mem_threadgroup);";
const LAST_BARRIER: &str = "threadgroup_barrier(mem_flags::mem_threadgroup);\n    threadgroup float* mine";
const MULTIPLY: &str = "simdgroup_multiply_accumulate(sum[i][j], left[i], right[j], sum[i][j]);";

/// What a kernel would do that knows where a matrix's elements lie in the lanes of an M1.
const BY_LANE: &str = "{
            uint lane = simd_prefix_exclusive_sum(1u);
            uint q = lane / 4u;
            uint at = ((q & 4u) + (lane / 2u) % 4u) * PART_N + (q & 2u) * 2u + (lane % 2u) * 2u;
            mine[i * 8u * PART_N + j * 8u + at] = sum[i][j].thread_elements()[0];
            mine[i * 8u * PART_N + j * 8u + at + 1u] = sum[i][j].thread_elements()[1];
        }";
const FADE: &str = "simdgroup_multiply(sum[f], fades, sum[f]);";
const FADE_BY_LANE: &str =
    "sum[f].thread_elements() *= simd_shuffle(fade, (lane / 16u * 4u + lane / 2u % 4u) * 4u);";
const DECODE_MERGE: &str =
    "threadgroup_barrier(mem_flags::mem_threadgroup);\n    uint fours = params.e8 * 2u;";
const STORE: &str = "simdgroup_store(sum[i][j], mine + i * 8u * PART_N + j * 8u, PART_N);";

pub const FAULTS: &[Fault] = &[
    gemm("missing barrier before the products", &[(BARRIER, "")], &["race"]),
    // After an odd number of steps the sums go where the last products were read.
    Fault {
        case: "63×96→65 int4z g32",
        ..gemm("missing barrier before the sums", &[(LAST_BARRIER, "threadgroup float* mine")], &["race"])
    },
    gemm("barrier that orders nothing", &[(BARRIER, "threadgroup_barrier(mem_flags::mem_none);")], &["race"]),
    gemm(
        "missing barrier of a SIMD-group",
        &[("simdgroup_barrier(mem_flags::mem_threadgroup);", "")],
        &["race-simdgroup"],
    ),
    gemm(
        "barrier for some",
        &[(BARRIER, "if (lane < 16u) threadgroup_barrier(mem_flags::mem_threadgroup);")],
        &["barrier-divergence"],
    ),
    gemm(
        "both steps in one pair of tiles",
        &[("(first_pair ? PAIR_OF_TILES : 0u)", "(first_pair ? 0u : 0u)")],
        &["race"],
    ),
    gemm(
        "tile row off by one",
        &[("w_to[t] = TILE_M * STRIDE", "w_to[t] = (TILE_M + 1u) * STRIDE")],
        &["uninit-threadgroup", "wrong", "oob-write"],
    ),
    gemm(
        "column of a row off by one",
        &[("uint n = n0 + part_n + e % PART_N;", "uint n = n0 + part_n + e % PART_N + 1u;")],
        &["wrong", "race-threadgroups", "oob-write"],
    ),
    gemm(
        "step of K off by one chunk",
        &[("(k0 + w_k[t]) % PACKET / 8u + h", "(k0 + w_k[t]) % PACKET / 8u + (h ^ 1u)")],
        &["wrong", "vector-index"],
    ),
    gemm(
        "unwritten edge of a tile",
        &[(
            "for (uint t = 0; t < A_ITEMS; ++t) put_eight",
            "for (uint t = 0; t < A_ITEMS; ++t) if (index != 127u) put_eight",
        )],
        &["uninit-threadgroup", "wrong"],
    ),
    gemm(
        "unwritten output",
        &[(
            "if (m >= params.m || n >= params.n) continue;",
            "if (m + 1u >= params.m || n >= params.n) continue;",
        )],
        &["wrong"],
    ),
    gemm(
        "weights read past the end",
        &[(
            "w_row[t] = min(n0 + item / (TILE_K / W_EACH), params.n - 1u);",
            "w_row[t] = n0 + item / (TILE_K / W_EACH);",
        )],
        &["oob-read"],
    ),
    gemm(
        "activations read past the end",
        &[(
            "a_row[t] = min(m0 + item / (TILE_K / 8u), params.m - 1u);",
            "a_row[t] = m0 + item / (TILE_K / 8u);",
        )],
        &["oob-read"],
    ),
    gemm(
        "written past the end",
        &[("if (m >= params.m || n >= params.n) continue;", "")],
        &["oob-write", "race-threadgroups"],
    ),
    gemm(
        "two slots exchanged",
        &[("scales [[buffer(3)]]", "scales [[buffer(4)]]"), ("zeros [[buffer(4)]]", "zeros [[buffer(3)]]")],
        &["wrong", "oob-read"],
    ),
    gemm("two arguments in one slot", &[("scales [[buffer(3)]]", "scales [[buffer(2)]]")], &["rule"]),
    gemm(
        "slot that nothing is bound to",
        &[("device TO* out [[buffer(7)]]", "device TO* out [[buffer(8)]]")],
        &["unbound-buffer", "buffer-missing"],
    ),
    gemm(
        "threadgroup memory taken for device memory",
        &[("threadgroup const TILE* tile_a", "device const TILE* tile_a")],
        &["address space"],
    ),
    gemm(
        "pointer without an address space",
        &[("inline void put_eight(threadgroup TILE* to", "inline void put_eight(TILE* to")],
        &["rule"],
    ),
    gemm(
        "written through a constant pointer",
        &[("to.out[(params.out_row", "to.aux[(params.out_row")],
        &["compile"],
    ),
    gemm(
        "misaligned vector",
        &[("tiles + w_to[t] + h * 8u", "tiles + w_to[t] + h * 8u + 1u")],
        &["misaligned"],
    ),
    gemm(
        "product by some lanes",
        &[(
            MULTIPLY,
            "{ if (simd_prefix_exclusive_sum(1u) != 3u) simdgroup_multiply_accumulate(sum[i][j], left[i], right[j], sum[i][j]); }",
        )],
        &["simdgroup-matrix-divergence"],
    ),
    gemm(
        "product of a matrix that is not transposed",
        &[("STRIDE, ulong2(0, 0), true)", "STRIDE, ulong2(0, 0), false)")],
        &["wrong"],
    ),
    gemm(
        "more threadgroup memory than there is",
        &[("memory[TILES / 16u]", "memory[TILES / 2u]")],
        &["limits"],
    ),
    gemm(
        "more threads than the kernel allows",
        &[("[[max_total_threads_per_threadgroup(THREADS)]]", "[[max_total_threads_per_threadgroup(64)]]")],
        &["limits"],
    ),
    Fault { alt_layout: true, ..gemm("matrix elements found by lane", &[(STORE, BY_LANE)], &["wrong"]) },
    attention(
        "missing barrier before the scores",
        &[("threadgroup_barrier(mem_flags::mem_threadgroup);\n        if (active) {", "if (active) {")],
        &["race"],
    ),
    attention(
        "missing barrier before the values",
        &[("threadgroup_barrier(mem_flags::mem_threadgroup);\n        stage(params, v,", "stage(params, v,")],
        &["race"],
    ),
    attention(
        "missing barrier before the next keys",
        &[("threadgroup_barrier(mem_flags::mem_threadgroup);\n        stage(params, k,", "stage(params, k,")],
        &["race"],
    ),
    attention(
        "missing barrier before the softmax",
        &[("simdgroup_barrier(mem_flags::mem_threadgroup);\n\n            float score", "float score")],
        &["race-simdgroup"],
    ),
    attention(
        "key off by one",
        &[("uint key = key0 + part + 4u * i;", "uint key = key0 + part + 4u * i + 1u;")],
        &["wrong"],
    ),
    attention("sums that do not fade", &[("if (simd_any(fade != 1.0f))", "if (false)")], &["wrong"]),
    attention(
        "keys that are not transposed",
        &[("STRIDE, ulong2(0, 0), true)", "STRIDE, ulong2(0, 0), false)")],
        &["wrong"],
    ),
    attention(
        "keys read past the end",
        &[("min(span.key0 + key, span.end - 1u)", "span.key0 + key")],
        &["oob-read"],
    ),
    attention(
        "queries read past the end",
        &[("uint row = min(own + lane / 4u, rows - 1u);", "uint row = own + lane / 4u;")],
        &["oob-read"],
    ),
    attention(
        "written past the end",
        &[("bool stored = own + lane / 4u < rows;", "bool stored = true;")],
        &["oob-write", "race-threadgroups", "race"],
    ),
    attention(
        "unwritten edge of a tile",
        &[("i < KEYS * FRAGMENTS;", "i + 1u < KEYS * FRAGMENTS;")],
        &["uninit-threadgroup"],
    ),
    attention("unwritten output", &[("piece >= e8 ||", "piece + 1u >= e8 ||")], &["wrong"]),
    attention(
        "two slots exchanged",
        &[("k [[buffer(2)]]", "k [[buffer(3)]]"), ("v [[buffer(3)]]", "v [[buffer(2)]]")],
        &["wrong"],
    ),
    attention(
        "threadgroup memory taken for device memory",
        &[("threadgroup TK* codes = (threadgroup TK*)tile;", "device TK* codes = (device TK*)tile;")],
        &["address space"],
    ),
    attention(
        "product by some SIMD-groups' lanes",
        &[("        if (active) {", "        if (active && lane != 3u) {")],
        &["simdgroup-matrix-divergence"],
    ),
    Fault {
        alt_layout: true,
        ..attention("rows of a matrix found by lane", &[(FADE, FADE_BY_LANE)], &["wrong"])
    },
    decode(
        "missing barrier before the softmax",
        &[("simdgroup_barrier(mem_flags::mem_threadgroup);\n        float2 scale", "float2 scale")],
        &["race-simdgroup"],
    ),
    Fault {
        case: "1 splits",
        ..decode(
            "missing barrier before the next scores",
            &[("simdgroup_barrier(mem_flags::mem_threadgroup);\n    }", "}")],
            &["race-simdgroup"],
        )
    },
    decode("missing barrier before the merge", &[(DECODE_MERGE, "uint fours = params.e8 * 2u;")], &["race"]),
    decode(
        "key off by one",
        &[("v[simd_shuffle(place, (pass + u)", "v[simd_shuffle(place, (pass + (u ^ 1u))")],
        &["wrong"],
    ),
    Fault {
        case: "over [20, 0, 37], blocks of 8",
        ..decode(
            "keys read past the end",
            &[("min(key0 + lane, end - 1u)", "key0 + lane")],
            &["oob-read", "wrong"],
        )
    },
    decode(
        "values read past the end of a row",
        &[("v_piece = min(t, params.e8 - 1u)", "v_piece = t")],
        &["oob-read"],
    ),
    decode("queries read past the end", &[("min(first + r, rows - 1u)", "first + r")], &["oob-read"]),
    decode("written past the end", &[("if (row >= rows) break;", "")], &["oob-write", "race-threadgroups"]),
    decode(
        "unwritten scores",
        &[("if (t % (TL / R) == 0u)", "if (t % (TL / R) == 0u && team + 1u < TEAMS)")],
        &["uninit-threadgroup"],
    ),
    decode("unwritten output", &[("i < R * fours;", "i + 1u < R * fours;")], &["wrong"]),
    decode(
        "two slots exchanged",
        &[("k [[buffer(2)]]", "k [[buffer(3)]]"), ("v [[buffer(3)]]", "v [[buffer(2)]]")],
        &["wrong"],
    ),
];
