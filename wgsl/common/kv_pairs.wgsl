// What a lane loads of a row at once: Y = 1 or 2 pieces of a quantised cache, of up to 16 bytes. Needs kv_decode.wgsl.
#if Y == 1
alias Load = Raw;
fn part(load: Load, y: u32) -> Raw { return load; }
#elif STORE == e4m3
alias Load = vec4<u32>;
fn part(load: Load, y: u32) -> Raw { return select(load.xy, load.zw, y == 1u); }
#elif STORE == int8
alias Load = vec4<u32>;
fn part(load: Load, y: u32) -> Raw { return select(load.xy, load.zw, y == 1u); }
#else
alias Load = vec2<u32>;
fn part(load: Load, y: u32) -> Raw { return select(load.x, load.y, y == 1u); }
#endif
