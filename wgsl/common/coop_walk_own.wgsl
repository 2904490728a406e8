// The walk of subgroups that have tiles of their own and each take every GRID_Kth slice of K: none waits for another before the
// sums, and a subgroup's barrier is no instruction on NVIDIA, so that the compiler decodes while matrices are loaded and multiplied.
// PIECES neighbouring lanes fetch neighbouring packets of a row of w, so a slice has PIECES · W_EACH columns. Of these the tile
// of w holds PIECES eights, one of every packet, for TILE_N / W_PARTS rows; that of a holds the activations of A_TILES such tiles.
// All subgroups take equally many steps, since a driver may make of a subgroup's barrier one of the workgroup.
    const STEP = GRID_K * PIECES * W_EACH;
    let own_k = subgroup * (PIECES * W_EACH);
    let own_a = subgroup * (TILE_M * A_STRIDE);
    let own_w = subgroup * (PART_ROWS * STRIDE);
    // What this lane moves: where it comes from, where it goes.
#for t A_ITEMS
    let a_piece_{t} = ({t}u * LANES + lane) % (PIECES * A_TILES);
    let a_at_{t} = ({t}u * LANES + lane) / (PIECES * A_TILES);
    let a_row_{t} = min(m0 + a_at_{t}, params.m - 1u);
    let a_k_{t} = own_k + a_piece_{t} / A_TILES * W_EACH + a_piece_{t} % A_TILES * 8u;
    let a_to_{t} = own_a + a_at_{t} * A_STRIDE + a_piece_{t} % A_TILES * TILE_K + a_piece_{t} / A_TILES * 8u;
    var a_{t} = load_eight(a_row_{t}, a_k_{t});
#endfor
#for t W_ITEMS
    let w_at_{t} = place({t}u * LANES + lane, PIECES, 8u);
    let w_k_{t} = own_k + w_at_{t}.y * W_EACH;
    let w_to_{t} = own_w + w_at_{t}.x * STRIDE + w_at_{t}.y * 8u;
#for h W_PARTS
    let w_row_{h}_{t} = min(n0 + {h}u * PART_ROWS + w_at_{t}.x, params.n - 1u);
    var w_{h}_{t} = fetch_packet(w_row_{h}_{t}, w_k_{t});
#for s SPANS
    var affine_{h}_{t}_{s} = fetch_affine(w_row_{h}_{t}, w_k_{t} + {s}u * SPAN);
#endfor
#endfor
#endfor
    for (var k0 = 0u; k0 < params.k; k0 += STEP) {
        // Loads for the next step; past the end of K they repeat the last ones.
#for h W_PARTS
#for t W_ITEMS
        let next_w_{h}_{t} = fetch_packet(w_row_{h}_{t}, k0 + STEP + w_k_{t});
#for s SPANS
        let next_affine_{h}_{t}_{s} = fetch_affine(w_row_{h}_{t}, k0 + STEP + w_k_{t} + {s}u * SPAN);
#endfor
#endfor
#endfor
#for s SPANS
#for b SPAN_BLOCKS
        {
            const AT = {s}u * SPAN + {b}u * (A_TILES * 8u);
            const NEXT = select(AT + A_TILES * 8u, STEP, AT + A_TILES * 8u == W_EACH);
            subgroupBarrier();
#for t A_ITEMS
            put_a(a_to_{t}, widen(a_{t}, k0 + AT + a_k_{t}));
#endfor
#for t A_ITEMS
            a_{t} = load_eight(a_row_{t}, k0 + NEXT + a_k_{t});
#endfor
#for c A_TILES
            subgroupBarrier();
#for q K_FRAGS
#for i FRAG_M
            let at_a_{c}_{q}_{i} = (own_a + {i}u * SIDE * A_STRIDE + {c}u * TILE_K + {q}u * SIDE) / UNIT;
            let a_mat_{c}_{q}_{i} = coopLoadT<MatA>(&tile_a[at_a_{c}_{q}_{i}], A_STRIDE / UNIT);
#endfor
#endfor
#for h W_PARTS
            subgroupBarrier();
#for t W_ITEMS
            put_w(w_to_{t}, w_{h}_{t}, AT / 8u + {c}u, affine_{h}_{t}_{s});
#endfor
            subgroupBarrier();
#for q K_FRAGS
#for j PART_FRAGS
            {
                let at_b = (own_w + {j}u * SIDE * STRIDE + {q}u * SIDE) / UNIT;
                let b = coopLoad<MatB>(&tile_w[at_b], STRIDE / UNIT);
#for i FRAG_M
                sum_{i}_{h}{j} = coopMultiplyAdd(a_mat_{c}_{q}_{i}, b, sum_{i}_{h}{j});
#endfor
            }
#endfor
#endfor
#endfor
#endfor
        }
#endfor
#endfor
#for h W_PARTS
#for t W_ITEMS
        w_{h}_{t} = next_w_{h}_{t};
#for s SPANS
        affine_{h}_{t}_{s} = next_affine_{h}_{t}_{s};
#endfor
#endfor
#endfor
    }
