// The walk of a workgroup whose subgroups share its tiles.
    const SLICE = TILE_K / GRID_K;
    const STEP = TILE_K * DEPTH;
    const W_PIECES = TILE_K / W_EACH; // of a row of w in TILE_K
    let k_slice = subgroup / (GRID_M * GRID_N) * SLICE;
    // What this thread moves each step: where it comes from, where it goes.
#for t A_ITEMS
    let a_item_{t} = {t}u * THREADS + thread;
    let a_at_{t} = place(a_item_{t}, TILE_K / 8u, 8u);
    let a_row_{t} = min(m0 + a_at_{t}.x, params.m - 1u);
    let a_k_{t} = a_at_{t}.y * 8u;
    let a_to_{t} = a_at_{t}.x * STRIDE + a_k_{t};
#for d DEPTH
    var a_{t}_{d} = load_eight(a_row_{t}, {d}u * TILE_K + a_k_{t});
#endfor
#endfor
#for t W_ITEMS
    let w_item_{t} = {t}u * THREADS + thread;
#if KN
    let w_k_{t} = w_item_{t} / (TILE_N / 8u);
    let w_row_{t} = n0 + w_item_{t} % (TILE_N / 8u) * 8u;
    let w_to_{t} = w_k_{t} * STRIDE_W + w_item_{t} % (TILE_N / 8u) * 8u;
#else
    let w_at_{t} = place(w_item_{t}, W_PIECES, W_EACH);
    let w_row_{t} = min(n0 + w_at_{t}.x, params.n - 1u);
    let w_k_{t} = w_at_{t}.y * W_EACH;
    let w_to_{t} = w_at_{t}.x * STRIDE_W + w_k_{t};
#endif
#for d DEPTH
    var w_{t}_{d} = fetch_packet(w_row_{t}, {d}u * TILE_K + w_k_{t});
#for s SPANS
    var affine_{t}_{s}_{d} = fetch_affine(w_row_{t}, {d}u * TILE_K + w_k_{t} + {s}u * SPAN);
#endfor
#endfor
#endfor
    for (var k0 = 0u; k0 < params.k; k0 += STEP) {
#if DEPTH != 1
        // All loads for the next DEPTH steps at once, and none is looked at before: NVIDIA's warps tell six loads apart, and one
        // that waits for an old load waits for the young ones that share its mark.
#for d DEPTH
#for t A_ITEMS
        let next_a_{t}_{d} = load_eight(a_row_{t}, k0 + STEP + {d}u * TILE_K + a_k_{t});
#endfor
#for t W_ITEMS
        let next_w_{t}_{d} = fetch_packet(w_row_{t}, k0 + STEP + {d}u * TILE_K + w_k_{t});
#for s SPANS
        let next_affine_{t}_{s}_{d} = fetch_affine(w_row_{t}, k0 + STEP + {d}u * TILE_K + w_k_{t} + {s}u * SPAN);
#endfor
#endfor
#endfor
#endif
#for d DEPTH
        workgroupBarrier();
#for t A_ITEMS
        put_a(a_to_{t}, widen(a_{t}_{d}, k0 + {d}u * TILE_K + a_k_{t}));
#endfor
#for t W_ITEMS
#for s SPANS
#for h SPAN_CHUNKS
        put_w(
            w_to_{t} + {s}u * SPAN + {h}u * 8u,
            w_{t}_{d},
            (({d}u * TILE_K + w_k_{t}) % PACKET + {s}u * SPAN) / 8u + {h}u,
            affine_{t}_{s}_{d},
        );
#endfor
#endfor
#endfor
        workgroupBarrier();
#if DEPTH == 1
        // Loads for the next step; past the end of K they repeat the last ones. Those of w, which come from further away, first.
#for t W_ITEMS
        w_{t}_0 = fetch_packet(w_row_{t}, k0 + STEP + w_k_{t});
#for s SPANS
        affine_{t}_{s}_0 = fetch_affine(w_row_{t}, k0 + STEP + w_k_{t} + {s}u * SPAN);
#endfor
#endfor
#for t A_ITEMS
        a_{t}_0 = load_eight(a_row_{t}, k0 + STEP + a_k_{t});
#endfor
#endif
        for (var in_slice = 0u; in_slice < SLICE; in_slice += SIDE) {
            let k = k_slice + in_slice;
#for j FRAG_N
#if KN
            let at_b_{j} = (k * STRIDE_W + frag_n + {j}u * SIDE) / UNIT;
            let b_{j} = coopLoadT<MatB>(&tile_w[at_b_{j}], STRIDE_W / UNIT);
#else
            let at_b_{j} = ((frag_n + {j}u * SIDE) * STRIDE_W + k) / UNIT;
            let b_{j} = coopLoad<MatB>(&tile_w[at_b_{j}], STRIDE_W / UNIT);
#endif
#endfor
#for i FRAG_M
            let at_a_{i} = ((frag_m + {i}u * SIDE) * STRIDE + k) / UNIT;
            let a_mat_{i} = coopLoadT<MatA>(&tile_a[at_a_{i}], STRIDE / UNIT);
#for j FRAG_N
            sum_{i}_0{j} = coopMultiplyAdd(a_mat_{i}, b_{j}, sum_{i}_0{j});
#endfor
#endfor
        }
#endfor
#if DEPTH != 1
#for d DEPTH
#for t A_ITEMS
        a_{t}_{d} = next_a_{t}_{d};
#endfor
#for t W_ITEMS
        w_{t}_{d} = next_w_{t}_{d};
#for s SPANS
        affine_{t}_{s}_{d} = next_affine_{t}_{s}_{d};
#endfor
#endfor
#endfor
#endif
    }
