// The splits of a tile of attention_decode in one launch: each workgroup leaves its part, and the one that finds that all others have
// left theirs merges them, in the order of the splits whichever it is. For the Spirv tier only, where storageBarrier() reaches the whole
// device (the translation of src/kernel/spirv.rs says so); in WGSL it does not.
// Needs R, PAIRS, THREADS, MASKED, pool and column_of(), and decode_finish.wgsl.
// A part: of each row its maximum and total, then of each row its sums, two columns at a time, in the order of the pool.
const PART = R * (1u + PAIRS);
struct Joint {
    arrived: array<atomic<u32>, TALLIES>, // workgroups of a tile; zeros between launches
    parts: array<vec2<f32>>,
}
@group(0) @binding(7) @coherent var<storage, read_write> workspace: Joint;
var<workgroup> arrived: u32;

// Whether this workgroup, of which one thread asks and tells, is the last of its tile.
fn is_last(thread: u32, tally: u32, counts: bool) -> bool {
    storageBarrier();
    if thread == 0u {
        arrived = 0u;
        if counts { arrived = atomicAdd(&workspace.arrived[tally], 1u) + 1u; }
        if arrived == params.splits { atomicStore(&workspace.arrived[tally], 0u); }
    }
    let all = workgroupUniformLoad(&arrived) == params.splits;
    storageBarrier();
    return all;
}

// A thread has two neighbouring pairs of a row, and the parts of every TEAMSth split.
const FOURS = PAIRS / 2u;
const TEAMS = THREADS / (4u * FOURS);

// Merges four rows of a tile from the row `four` on; `first` is the first split's part, and `tile` the tile's first row.
fn merge(first: u32, four: u32, rows: u32, tile: u32, at_0: u32, thread: u32) {
    let row = four + thread / FOURS % 4u;
    let pair = thread % FOURS * 2u;
    let apart = params.tiles * PART;
    var top = MASKED;
    var total = 0.0;
    var sum = vec4<f32>();
    for (var split = thread / (4u * FOURS); split < params.splits; split += BATCH * TEAMS) {
        // All loads of a batch before the first is used.
#for s BATCH
        let part_{s} = first + min(split + {s}u * TEAMS, params.splits - 1u) * apart;
        let stats_{s} = workspace.parts[part_{s} + row];
        let sum_{s} = vec4(workspace.parts[part_{s} + R + row * PAIRS + pair], workspace.parts[part_{s} + R + row * PAIRS + pair + 1u]);
#endfor
        var most = top;
#for s BATCH
        most = max(most, stats_{s}.x);
#endfor
        sum *= exp2(top - most);
        total *= exp2(top - most);
        top = most;
#for s BATCH
        let weight_{s} = select(0.0, exp2(stats_{s}.x - most), split + {s}u * TEAMS < params.splits);
        sum += weight_{s} * sum_{s};
        total += weight_{s} * stats_{s}.y;
#endfor
    }
    workgroupBarrier();
    pool[thread] = vec2(top, total);
    pool[THREADS + 2u * thread] = sum.xy;
    pool[THREADS + 2u * thread + 1u] = sum.zw;
    workgroupBarrier();
    if thread >= 4u * FOURS || row >= rows { return; }
    var most = top;
    for (var t = 1u; t < TEAMS; t++) { most = max(most, pool[thread + t * 4u * FOURS].x); }
    sum *= exp2(top - most);
    total *= exp2(top - most);
    for (var t = 1u; t < TEAMS; t++) {
        let at = thread + t * 4u * FOURS;
        let weight = exp2(pool[at].x - most);
        sum += weight * vec4(pool[THREADS + 2u * at], pool[THREADS + 2u * at + 1u]);
        total += weight * pool[at].y;
    }
    let at = row_at(tile + row, at_0);
    finish(at, column_of(pair), sum.xy, total);
    finish(at, column_of(pair + 1u), sum.zw, total);
}
