// Keys of four neighbouring logits of a row; 0, as for NaN, past the end of the row. The kernel declares `logits` and
// `params.cols`. WIDTH 4 is for rows that are a multiple of four and start on a whole vector.
//!include "common/order.wgsl"

fn logit_units() -> u32 {
    return (params.cols + 3u) / 4u;
}

fn keys4(row: u32, unit: u32) -> vec4<u32> {
#if WIDTH == 4
    let v = vec4<f32>(logits[row * (params.cols / 4u) + unit]);
    return vec4(order_key(v.x), order_key(v.y), order_key(v.z), order_key(v.w));
#else
    let first = row * params.cols;
    let c = 4u * unit;
    let left = params.cols - c; // at least 1
    var keys = vec4(order_key(f32(logits[first + c])), 0u, 0u, 0u);
    if left > 1u { keys.y = order_key(f32(logits[first + c + 1u])); }
    if left > 2u { keys.z = order_key(f32(logits[first + c + 2u])); }
    if left > 3u { keys.w = order_key(f32(logits[first + c + 3u])); }
    return keys;
#endif
}
