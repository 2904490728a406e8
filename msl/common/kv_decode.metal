// Rows of keys or values of every format, read in pieces of eight elements: a Raw (32, 16, 16, 8, 8, 4 or 4 bytes), which
// codes_of() widens; value = scale · code, with a scale a row where QUANTISED. The bits are those of weights, so the decoders are
// theirs, by the name of the weight format: WEIGHT = f32|f16|bf16|e4m3|int8z|int4|fp4.
//!include "common/eight.metal"
#if WEIGHT == f32
struct Packet { float4 lo; float4 hi; };
using Raw = Packet;
inline Packet packet_of(Raw raw) { return raw; }
//!include "common/weight/f32.metal"
#else
using Packet = uint4;
#if WEIGHT == f16
using Raw = uint4;
inline Packet packet_of(Raw raw) { return raw; }
//!include "common/weight/f16.metal"
#elif WEIGHT == bf16
using Raw = uint4;
inline Packet packet_of(Raw raw) { return raw; }
//!include "common/weight/bf16.metal"
#elif WEIGHT == e4m3
using Raw = uint2;
inline Packet packet_of(Raw raw) { return uint4(raw, 0u, 0u); }
//!include "common/weight/e4m3.metal"
#elif WEIGHT == int8z
using Raw = uint2;
inline Packet packet_of(Raw raw) { return uint4(raw, 0u, 0u); }
//!include "common/weight/int8.metal"
#elif WEIGHT == int4
using Raw = uint;
inline Packet packet_of(Raw raw) { return uint4(raw, 0u, 0u, 0u); }
//!include "common/weight/int4.metal"
#else
using Raw = uint;
inline Packet packet_of(Raw raw) { return uint4(raw, 0u, 0u, 0u); }
//!include "common/weight/fp4.metal"
#endif
#endif
// What integers are stored with added.
#if WEIGHT == int8z
constant constexpr float CODE_OFFSET = 128.0f;
#elif WEIGHT == int4
constant constexpr float CODE_OFFSET = 8.0f;
#else
constant constexpr float CODE_OFFSET = 0.0f;
#endif

inline Eight codes_of(Raw raw) {
    Eight eight = decode(packet_of(raw), 0u);
#if QUANTISED
    float4 unit = float4(CODE_UNIT), offset = float4(-CODE_OFFSET);
    return Eight{fma(eight.lo, unit, offset), fma(eight.hi, unit, offset)};
#else
    return eight;
#endif
}

// The scales of a key and of its value.
inline float2 scales_of(device const uint* scales, uint row) {
#if QUANTISED
    return halves(scales[row]);
#else
    return float2(1.0f);
#endif
}
