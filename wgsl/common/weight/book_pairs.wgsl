// All pairs of a codebook's 16 values in workgroup memory, the halves of a word each, with a copy for each of 32 lanes as in book.wgsl. A pair
// of codes, which is a byte, is its own address: one shift, one operation that masks it and adds the lane, and one load for two values.
// The entry point calls fill_pairs() and waits at a barrier before it decodes.
var<workgroup> book: array<u32, 256u * 32u>;
var<private> book_lane: u32; // in bytes
fn fill_pairs(thread: u32) {
    book_lane = thread % 32u * 4u;
    // A subgroup makes the sixteen pairs of a first value, which is taken out of its tree once.
    for (var first = thread / 32u; first < 16u; first += THREADS / 32u) {
        let low = pack2x16float(vec2<f32>(codebook(vec4<u32>(first)).x, 0.0));
#for i 16
        book[({i}u * 16u + first) * 32u + thread % 32u] = low | pack2x16float(vec2<f32>(0.0, codebook(vec4<u32>({i}u)).x));
#endfor
    }
}
// The pair whose byte begins at bit 7.
fn pair_at(bits: u32) -> u32 { return book[((bits & 0x7f80u) | book_lane) / 4u]; }
