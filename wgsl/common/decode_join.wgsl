// The splits of a tile of attention_decode in one launch: each workgroup leaves its part, and the one that finds that all others have
// left theirs merges them, in the order of the splits whichever it is. For the Spirv tier only, where storageBarrier() reaches the whole
// device (the translation of src/kernel/spirv.rs says so); in WGSL it does not.
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

struct Merged { sum: vec2<f32>, total: f32 }

// Sums of a row and what they are to be divided by; `first` is the part of the first split, `apart` how far it is to the next.
fn merged(first: u32, apart: u32, row: u32, pair: u32) -> Merged {
    var top = MASKED;
    var all = Merged(vec2<f32>(), 0.0);
    for (var split = 0u; split < params.splits; split += 16u) {
        // All loads of a batch before the first is used.
#for s 16
        let part_{s} = first + min(split + {s}u, params.splits - 1u) * apart;
        let stats_{s} = workspace.parts[part_{s} + row];
        let sum_{s} = workspace.parts[part_{s} + R + row * PAIRS + pair];
#endfor
        var most = top;
#for s 16
        most = max(most, stats_{s}.x);
#endfor
        let fade = exp2(top - most);
        top = most;
        all.sum *= fade;
        all.total *= fade;
#for s 16
        let weight_{s} = select(0.0, exp2(stats_{s}.x - most), split + {s}u < params.splits);
        all.sum += weight_{s} * sum_{s};
        all.total += weight_{s} * stats_{s}.y;
#endfor
    }
    return all;
}
