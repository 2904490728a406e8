// The walk of subgroups that decode w in registers into their matrices' elements, without workgroup memory, each for every GRID_Kth
// slice of K. Four neighbouring lanes hold four neighbouring packets of a row of w, and the same columns of rows of a: K is summed in
// that order. ARRANGED: a comes from matmul/arrange_rows.wgsl, so that what a subgroup loads at once lies side by side. TOUCHES: each lane has a
// word of a row of w brought to the second cache, a step before its loads.
    const SLICE = 4u * W_EACH;
    const STEP = GRID_K * SLICE;
    let own_slice = subgroup / (GRID_M * GRID_N) * SLICE;
    let own_k = own_slice + lane % 4u * W_EACH;
    let near = lane / 4u;
#if ARRANGED
    let padded_k = (params.k + STEP - 1u) / STEP * STEP;
    let own_a = own_slice + lane;
#endif
#for i FRAG_M
#for h A_HALVES
#if ARRANGED
    let a_at_{i}_{h} = min((m0 + frag_m) / 8u + {i}u * 2u + {h}u, (params.m - 1u) / 8u) * padded_k + own_a;
    var a_{i}_{h} = a[a_at_{i}_{h}];
#else
    let a_row_{i}_{h} = min(m0 + frag_m + {i}u * SIDE + {h}u * 8u + near, params.m - 1u);
    var a_{i}_{h} = load_eight(a_row_{i}_{h}, own_k);
#endif
#endfor
#endfor
#for j FRAG_N
#for h 2
    let w_row_{j}_{h} = min(n0 + frag_n + {j}u * SIDE + {h}u * 8u + near, params.n - 1u);
    var w_{j}_{h} = fetch_packet(w_row_{j}_{h}, own_k);
#for s SPANS
    var affine_{j}_{h}_{s} = fetch_affine(w_row_{j}_{h}, own_k + {s}u * SPAN);
#endfor
#endfor
#endfor
#if TOUCHES
    let touched_row = min(n0 + frag_n + lane, params.n - 1u);
    let touched_k = own_slice + 2u * STEP;
    var touched = 0u;
    var last_touched = 0u; // looked at a step later, when it has come
#endif
    for (var k0 = 0u; k0 < params.k; k0 += STEP) {
        let k = own_k + k0;
#if TOUCHES
        touched |= last_touched;
        last_touched = fetch_packet(touched_row, touched_k + k0).x;
#endif
        // Loads for the next step; past the end of K they repeat the last ones.
#for j FRAG_N
#for h 2
        let next_w_{j}_{h} = fetch_packet(w_row_{j}_{h}, k + STEP);
#for s SPANS
        let next_affine_{j}_{h}_{s} = fetch_affine(w_row_{j}_{h}, k + STEP + {s}u * SPAN);
#endfor
#endfor
#endfor
#for s SPANS
#for j FRAG_N
#for h 2
        let scale_{j}_{h}_{s} = ready(affine_{j}_{h}_{s});
#endfor
#endfor
#for c SPAN_CHUNKS
        {
            const AT = {s}u * SPAN + {c}u * 8u;
#for i FRAG_M
            let near_a_{i} = held(a_{i}_0, k + AT);
#if A_HALVES == 2
            let far_a_{i} = held(a_{i}_1, k + AT);
#else
            let far_a_{i} = HalfEight();
#endif
            let a_lo_{i} = fragment_a(near_a_{i}.lo, far_a_{i}.lo);
            let a_hi_{i} = fragment_a(near_a_{i}.hi, far_a_{i}.hi);
#for h A_HALVES
#if ARRANGED
            if AT + 8u == W_EACH {
                a_{i}_{h} = a[a_at_{i}_{h} + min(k0 + STEP, padded_k - STEP)];
            } else {
                a_{i}_{h} = a[a_at_{i}_{h} + k0 + (AT / 8u + 1u) * 32u];
            }
#else
            if AT + 8u == W_EACH {
                a_{i}_{h} = load_eight(a_row_{i}_{h}, k + STEP);
            } else {
                a_{i}_{h} = load_nth_eight(a_row_{i}_{h}, k, AT / 8u + 1u);
            }
#endif
#endfor
#endfor
#for j FRAG_N
            let near_w_{j} = weights(w_{j}_0, AT / 8u, scale_{j}_0_{s});
            let far_w_{j} = weights(w_{j}_1, AT / 8u, scale_{j}_1_{s});
            let w_lo_{j} = fragment_b(near_w_{j}.lo, far_w_{j}.lo);
            let w_hi_{j} = fragment_b(near_w_{j}.hi, far_w_{j}.hi);
#for i FRAG_M
            sum_{i}_0{j} = coopMultiplyAdd(a_lo_{i}, w_lo_{j}, sum_{i}_0{j});
            sum_{i}_0{j} = coopMultiplyAdd(a_hi_{i}, w_hi_{j}, sum_{i}_0{j});
#endfor
#endfor
        }
#endfor
#endfor
#for j FRAG_N
#for h 2
        w_{j}_{h} = next_w_{j}_{h};
#for s SPANS
        affine_{j}_{h}_{s} = next_affine_{j}_{h}_{s};
#endfor
#endfor
#endfor
    }
#if TOUCHES
    if never(touched) { scratch[thread] = 0.0; }
#endif
