// A codebook of ENTRIES values in workgroup memory, a copy for each of 32 lanes: an entry's copies lie side by side, so every lane stays
// in a bank of its own whatever its code is. Two or three integer operations and a load for a code, where a tree of selects takes 15 and more.
// The entry point calls fill_book() and waits at a barrier before it decodes. THREADS is a multiple of 32, at most 32 · ENTRIES.
const COPIES = 32u;
var<workgroup> book: array<array<f32, COPIES>, ENTRIES>;
var<private> book_lane: u32;
// Each thread makes some copies of one entry; which lane's it starts with differs, so that their stores meet in few banks.
fn fill_book(thread: u32) {
    book_lane = thread % COPIES;
    let entry = thread % ENTRIES;
    let value = codebook(vec4<u32>(entry)).x;
    const EACH_COPIES = ENTRIES * COPIES / THREADS;
    for (var i = 0u; i < EACH_COPIES; i++) {
        book[entry][thread / ENTRIES * EACH_COPIES + (thread + i) % EACH_COPIES] = value;
    }
}
// The values of four codes, a byte each.
fn looked_up(q: u32) -> vec4<f32> {
    return vec4<f32>(
        book[q & 0xffu][book_lane],
        book[(q >> 8u) & 0xffu][book_lane],
        book[(q >> 16u) & 0xffu][book_lane],
        book[q >> 24u][book_lane],
    );
}
