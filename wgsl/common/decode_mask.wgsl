// What a bias or a tree does to the scores of attention_decode: of FW folded rows from `row` on and one key. They share a
// binding, which holds words.
//!include "common/bias.wgsl"
//!include "common/tree.wgsl"
fn mask_word(at: u32) -> u32 { return bias[at]; }

// What is added to the score of a folded row and a key, to base 2.
fn bias_of(row: u32, key: u32, sequence: u32, head: u32) -> f32 {
    return bitcast<f32>(bias[bias_start(row, sequence, head) + key]) * LOG2_E;
}

#if FW == 1
fn biases(row: u32, key: u32, sequence: u32, head: u32) -> F { return bias_of(row, key, sequence, head); }
fn tree_rows(seen: bool, row: u32, key: u32, len: u32, sequence: u32) -> bool {
    return seen && (params.bias != TREE || tree_sees(row, key, len, sequence));
}
#else
#if FW == 4
alias Seen = vec4<bool>;
#else
alias Seen = vec2<bool>;
#endif
fn biases(row: u32, key: u32, sequence: u32, head: u32) -> F {
    var sum = F();
#for i FW
    sum[{i}] = bias_of(row + {i}u, key, sequence, head);
#endfor
    return sum;
}
fn tree_rows(all: Seen, row: u32, key: u32, len: u32, sequence: u32) -> Seen {
    if params.bias != TREE { return all; }
    var seen = all;
#for i FW
    seen[{i}] = seen[{i}] && tree_sees(row + {i}u, key, len, sequence);
#endfor
    return seen;
}
#endif
