// How a team of attention_decode walks the keys of its split: U at a time ("four"), STEP keys from one four to the next. Past
// the last four it stays: what lies behind is not ours to read. Where the next block is stands in a table, so `number` is
// loaded a step before it is needed, and nothing is divided on the way.
#if PAGED
struct Walk { key: u32, block: u32, inside: u32, number: u32 }

fn number_of(block: u32, sequence: u32) -> u32 {
    // Without a table there is one block, and a word of another buffer is read.
    let number = table[sequence * params.table + 1u + block];
    return select(sequence, min(number, params.blocks - 1u), params.table != 0u);
}

fn walk_from(key: u32, sequence: u32) -> Walk {
    let block = key / params.block;
    return Walk(key, block, key - block * params.block, number_of(block, sequence));
}

// `stride`: the quotient and the remainder of STEP by the keys of a block.
fn walk_on(walk: Walk, last: u32, stride: vec2<u32>, sequence: u32) -> Walk {
    let more = walk.inside + stride.y;
    let over = more >= params.block;
    let there = vec3(walk.key + STEP, walk.block + stride.x + select(0u, 1u, over), more - select(0u, params.block, over));
    let next = select(vec3(walk.key, walk.block, walk.inside), there, walk.key + STEP <= (last & ~(U - 1u)));
    return Walk(next.x, next.y, next.z, number_of(next.y, sequence));
}

fn row_of_walk(walk: Walk, sequence: u32, head_row: u32) -> u32 {
    return walk.number * params.block_rows + head_row + walk.inside * params.key_rows;
}
#else
struct Walk { key: u32 }
fn walk_from(key: u32, sequence: u32) -> Walk { return Walk(key); }
fn walk_on(walk: Walk, last: u32, stride: vec2<u32>, sequence: u32) -> Walk {
    return Walk(min(walk.key + STEP, last & ~(U - 1u)));
}
fn row_of_walk(walk: Walk, sequence: u32, head_row: u32) -> u32 {
    return sequence * params.block_rows + head_row + walk.key * params.key_rows;
}
#endif

// The row of the first of U keys, and how many of the others count.
struct Four { row: u32, more: u32 }
fn four_at(walk: Walk, last: u32, sequence: u32, head_row: u32) -> Four {
    return Four(row_of_walk(walk, sequence, head_row), min(last - walk.key, U - 1u));
}

// One of the four. Those of a quantised cache follow each other, and all exist, as blocks hold a multiple of eight;
// of others, keys past the last repeat it.
fn row_of_key(four: Four, u: u32) -> u32 {
#if QUANTISED
    return four.row + u;
#else
    return four.row + min(u, four.more) * params.key_rows;
#endif
}
