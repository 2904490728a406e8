// The largest activation, without its sign, of what shares a scale, and NaN where activations are no numbers, which integers cannot say, or
// infinite; else zero. HALVES takes them as they are loaded.
#if HALVES
alias Top = vec4<f16>;
fn higher(top: Top, x: RawEight) -> Top { return max(top, max(abs(halves_of(x.xy)), abs(halves_of(x.zw)))); }
fn unless_finite(bad: Top, x: RawEight, nothing: u32) -> Top {
    return fma(halves_of(x.xy), Top(f16(nothing)), fma(halves_of(x.zw), Top(f16(nothing)), bad));
}
#else
alias Top = vec4<f32>;
fn higher(top: Top, x: Eight) -> Top { return max(top, max(abs(x.lo), abs(x.hi))); }
fn unless_finite(bad: Top, x: Eight, nothing: u32) -> Top {
    return fma(x.lo, Top(f32(nothing)), fma(x.hi, Top(f32(nothing)), bad));
}
#endif
fn highest(top: Top) -> f32 { return f32(max(max(top.x, top.y), max(top.z, top.w))); }
