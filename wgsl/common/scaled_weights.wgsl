// Weights as halves, scaled, for matrices: what a thread fetches of them, and what it makes of that. Needs weight.wgsl, packed.wgsl and
// half_activations.wgsl.
fn fetch_packet(row: u32, k: u32) -> Packet {
    return load_packet(row, min(k / PACKET, params.packets - 1u));
}

// What turns codes into weights: the scale and, if it is stored, the zero, or x and y of code · x + y.
#if HALVES
#if SCALE_FORMAT == f16
alias Affine = HalfScale;
#else
alias Affine = f32;
#endif
fn fetch_affine(row: u32, k: u32) -> Affine {
    let group = scale_group(k);
#if SCALE_FORMAT == f16
    let scale = scales[row * params.groups + group];
#else
    let scale = load_scale(row, group);
#endif
#if STORED_ZEROS
    return Affine(scale, f16(load_zero(row, group)));
#else
    return scale;
#endif
}
#else
alias Affine = vec2<f32>;
fn fetch_affine(row: u32, k: u32) -> Affine {
    let group = scale_group(k);
    let scale = load_scale(row, group);
    return vec2<f32>(scale * CODE_UNIT, -scale * load_zero(row, group));
}
#endif

// Done once for a span, and not right after the load.
#if HALVES
alias Ready = HalfScale;
#else
alias Ready = Affine;
#endif
fn ready(affine: Affine) -> Ready {
#if SMALL_SCALES
    return affine * f16(CODE_UNIT);
#elif HALVES
#if SCALE_FORMAT == f16
    return affine;
#else
    return half_scale(affine);
#endif
#else
    return affine;
#endif
}

fn weights(packet: Packet, chunk: u32, affine: Ready) -> HalfEight {
#if HALVES
    let w = half_weights(packet, chunk, affine);
    return HalfEight(w.lo, w.hi);
#else
    let codes = decode(packet, chunk);
#if QUANTISED
    let lo = fma(codes.lo, vec4<f32>(affine.x), vec4<f32>(affine.y));
    let hi = fma(codes.hi, vec4<f32>(affine.x), vec4<f32>(affine.y));
    return HalfEight(vec4<f16>(lo), vec4<f16>(hi));
#else
    return HalfEight(vec4<f16>(codes.lo), vec4<f16>(codes.hi));
#endif
#endif
}
