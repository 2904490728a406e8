// Codes as the halves that their bits are, for matrices that are scaled afterwards: bare_halves() gives eight of them, in units of CODE_UNIT and,
// of integers, the last four in units of HIGH times that, as they stay where they are in their words. bare_order() brings activations, which
// are halves too, into the same order.
//!include "common/fours_apart.wgsl"
