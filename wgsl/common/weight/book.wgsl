// A codebook of ENTRIES values in workgroup memory, a copy for each of 32 lanes: an entry's copies lie side by side, so every lane stays
// in a bank of its own whatever its code is. Two or three integer operations and a load for a code, where a tree of selects takes 15 and more.
// The entry point calls fill_book() and waits at a barrier before it decodes. HALVES: an entry is a word whose two halves both hold the value.
const COPIES = 32u;
#if HALVES
alias Entry = u32;
fn entry_of(value: f32) -> Entry { return pack2x16float(vec2<f32>(value)); }
fn value_of(entry: Entry) -> f32 { return unpack2x16float(entry).x; }
#else
alias Entry = f32;
fn entry_of(value: f32) -> Entry { return value; }
fn value_of(entry: Entry) -> f32 { return entry; }
#endif
var<workgroup> book: array<array<Entry, COPIES>, ENTRIES>;
var<private> book_lane: u32;
fn fill_book(thread: u32) {
    book_lane = thread % COPIES;
    if THREADS % 32u == 0u && THREADS <= ENTRIES * COPIES {
        // Each thread makes some copies of one entry; which lane's it starts with differs, so that their stores meet in few banks.
        let entry = thread % ENTRIES;
        let value = entry_of(codebook(vec4<u32>(entry)).x);
        const EACH_COPIES = max(ENTRIES * COPIES / THREADS, 1u);
        for (var i = 0u; i < EACH_COPIES; i++) {
            book[entry][thread / ENTRIES * EACH_COPIES + (thread + i) % EACH_COPIES] = value;
        }
    } else {
        for (var i = thread; i < ENTRIES * COPIES; i += THREADS) {
            book[i / COPIES][i % COPIES] = entry_of(codebook(vec4<u32>(i / COPIES)).x);
        }
    }
}
// The values of four codes, a byte each.
fn looked_up(q: u32) -> vec4<f32> {
    return vec4<f32>(
        value_of(book[q & 0xffu][book_lane]),
        value_of(book[(q >> 8u) & 0xffu][book_lane]),
        value_of(book[(q >> 16u) & 0xffu][book_lane]),
        value_of(book[q >> 24u][book_lane]),
    );
}
#if HALVES
// Those of codes 0 and 2, and of 1 and 3, as the halves of words.
fn looked_up_pairs(q: u32) -> vec2<u32> {
    let low = vec2<u32>(book[q & 0xffu][book_lane], book[(q >> 8u) & 0xffu][book_lane]);
    let high = vec2<u32>(book[(q >> 16u) & 0xffu][book_lane], book[q >> 24u][book_lane]);
    return (low & vec2<u32>(0xffffu)) | (high & vec2<u32>(0xffff0000u));
}
#endif
