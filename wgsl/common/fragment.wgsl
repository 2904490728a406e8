// Matrices of side 16 of the elements that each thread holds, as NVIDIA spreads them over 32 lanes: of A lane 4·i + j has those of
// rows i and i + 8 and columns 2j, 2j + 1, 2j + 8, 2j + 9, of B likewise those of columns i and i + 8. Columns of A and rows of B are
// K, where the order does not matter as long as both have the same. What loads from private memory and stores into it mean says
// src/kernel/spirv.rs.
fn fragment_a(near: vec4<f16>, far: vec4<f16>) -> MatA {
    var elements = array<f16, 8>(near.x, near.y, near.z, near.w, far.x, far.y, far.z, far.w);
    return coopLoad<MatA>(&elements[0], 8u);
}
fn fragment_b(near: vec4<f16>, far: vec4<f16>) -> MatB {
    var elements = array<f16, 8>(near.x, near.y, near.z, near.w, far.x, far.y, far.z, far.w);
    return coopLoad<MatB>(&elements[0], 8u);
}
// Of C a lane has the rows and columns that it has of A.
fn fragment_c(elements: array<f32, 8>) -> MatC {
    var copy = elements;
    return coopLoad<MatC>(&copy[0], 8u);
}
fn elements_of(matrix: MatC) -> array<f32, 8> {
    var elements = array<f32, 8>();
    coopStore(matrix, &elements[0], 8u);
    return elements;
}
