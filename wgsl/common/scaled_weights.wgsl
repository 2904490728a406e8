// Weights as halves, scaled, for matrices, of a packet of codes and what they share. Needs weight.wgsl and half_activations.wgsl.

// What turns codes into weights: the scale and, if it is stored, the zero, or x and y of code · x + y.
#if HALVES
#if SCALE_FORMAT == f16
alias Affine = HalfScale;
#else
alias Affine = f32;
#endif
#else
alias Affine = vec2<f32>;
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
